"""One step's gradient: what is minimised, compiled or not, and a batch that does not fit in the memory."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer
from zuko.lazy import LazyTransform

from vaekit.devices import out_of_memory
from vaekit.errors import UserError
from vaekit.model import VAE
from vaekit.parts.types import Labels, Objective
from vaekit.screen import say

Report = dict[str, Tensor]
Score = Callable[[Tensor, Labels | None, float], tuple[Tensor, Report]]
"""Images, labels and the epoch -> the loss, and named values to log."""


def scorer(model: VAE, objective: Objective, compiled: bool = False) -> Score:
    """The objective's value for a batch.

    Compiled, all of it becomes one graph, on an NVIDIA GPU a CUDA graph, once the schedules have reached their final
    values, which are then a constant of it. Flows pick latents by index in a way that cannot be compiled: of a model
    with any, encoder and decoder are.
    """

    def score(x: Tensor, y: Labels | None, epoch: float) -> tuple[Tensor, Report]:
        return objective(model.terms(x, y, objective.samples), epoch)

    if not compiled:
        return score
    mode = "reduce-overhead" if next(model.parameters()).device.type == "cuda" else None
    if any(isinstance(module, LazyTransform) for module in model.modules()):
        for network in (model.encoder, model.decoder):
            network.compile(mode=mode)
        return score
    graph: Score = torch.compile(score, mode=mode)

    def settled(x: Tensor, y: Labels | None, epoch: float) -> tuple[Tensor, Report]:
        return graph(x, y, math.inf) if epoch >= objective.settled else score(x, y, epoch)

    return settled


def gradients(
    score: Score,
    x: Tensor,
    y: Labels | None,
    epoch: float,
    optimizer: Optimizer,
    pieces: int,
    divisible: bool,
) -> tuple[Report, int]:
    """Give the weights the gradient of a batch's loss; return the values to log, and the parts it took.

    The batch goes through in `pieces` parts, and in twice as many where the memory does not suffice: its gradient is
    the mean of theirs.

    Raises:
        UserError: the memory does not suffice, and the batch cannot be divided.
    """
    while True:
        optimizer.zero_grad()
        try:
            if pieces > 1:
                return _by_parts(score, x, y, epoch, pieces), pieces
            loss, report = score(x, y, epoch)
            loss.backward()
            return report, 1
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        pieces = _more(pieces, len(x), divisible, x.device)


def _by_parts(score: Score, x: Tensor, y: Labels | None, epoch: float, pieces: int) -> Report:
    report: Report = {}
    images = x.chunk(pieces)
    for part, labels in zip(images, [None] * len(images) if y is None else y.chunk(pieces), strict=True):
        loss, found = score(part, labels, epoch)
        share = len(part) / len(x)
        (share * loss).backward()
        for name, value in found.items():
            report[name] = report.get(name, 0) + share * value.detach()
    return report


def _more(pieces: int, size: int, divisible: bool, device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if not divisible or pieces >= size:
        why = "not even one image does" if divisible else "this objective looks at all of it at once"
        raise UserError(
            f"A batch of {size} images does not fit in the memory of {device}, and {why}: "
            "take a smaller --batch-size, a smaller --size or a smaller network."
        )
    say(f"A batch does not fit in the memory of {device}: it goes through in {2 * pieces} parts, as one step")
    return 2 * pieces
