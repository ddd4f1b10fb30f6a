"""A table of a model's layers."""

from functools import partial

import torch
from torch import Tensor, nn

from vaekit.models.vae import VAE
from vaekit.utils.device import fork_rng


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def summary(model: VAE) -> str:
    """A table of the layers that have weights: name, type, output for one image, number of parameters."""
    leaves = {name: m for name, m in model.named_modules() if [*m.parameters(recurse=False)] and name}
    outputs: dict[str, str] = {}

    def record_output(name: str, _: nn.Module, __: object, output: object) -> None:
        outputs.setdefault(name, "x".join(map(str, output.shape[1:])) if isinstance(output, Tensor) else "")

    handles = [leaf.register_forward_hook(partial(record_output, name)) for name, leaf in leaves.items()]
    device = next(model.parameters()).device
    training = model.training
    try:
        model.eval()
        with torch.no_grad(), fork_rng():
            terms = model.terms(torch.zeros(1, *model.shape, device=device), model.labels_in_turn(1))
            terms.groups[0].log_p  # noqa: B018  a flow's layers run only when its density is computed
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    outputs |= {name: "" for name in leaves if name not in outputs}  # lists of parameters are not called
    rows = [("layer", "type", "output", "parameters")]
    for name, shape in outputs.items():
        count = sum(p.numel() for p in leaves[name].parameters(recurse=False))
        rows.append((name, type(leaves[name]).__name__, shape, f"{count:,}"))
    rows.append(("total", "", "", f"{count_parameters(model):,}"))
    width, kind = (max(map(len, column)) for column in list(zip(*rows, strict=True))[:2])
    return "\n".join(f"  {a:<{width}}  {b:<{kind}}  {c:>12}  {d:>11}" for a, b, c, d in rows)
