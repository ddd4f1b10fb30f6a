"""A table of a model's layers."""

from functools import partial

import torch
from torch import Tensor, nn

from vaekit.models.vae import VAE
from vaekit.utils.device import fork_rng


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
            label = torch.zeros(1, dtype=torch.long, device=device) if model.classes else None
            terms = model.terms(torch.zeros(1, *model.shape, device=device), label)
            terms.groups[0].log_p  # noqa: B018  a flow's layers run only when its density is computed
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    outputs |= {name: "" for name in leaves if name not in outputs}  # lists of parameters are not called
    counts = {name: sum(p.numel() for p in leaves[name].parameters(recurse=False)) for name in outputs}
    types = {name: type(leaves[name]).__name__ for name in outputs}
    total = sum(p.numel() for p in model.parameters())
    width, kind = max(map(len, outputs)), max(map(len, types.values()))
    lines = [
        f"  {name:<{width}}  {types[name]:<{kind}}  {shape:>12}  {counts[name]:>11,}"
        for name, shape in outputs.items()
    ]
    title = f"  {'layer':<{width}}  {'type':<{kind}}  {'output':>12}  {'parameters':>11}"
    return "\n".join([title, *lines, f"  {'total':<{width}}  {'':<{kind}}  {'':>12}  {total:>11,}"])
