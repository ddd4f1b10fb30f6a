"""One step of training: what is minimised, compiled or not, recorded on a GPU, and a batch that does not fit in the
memory."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from zuko.lazy import LazyTransform

from vaekit.config.training import TrainingConfig
from vaekit.errors import UserError
from vaekit.models.registry import provides
from vaekit.models.terms import Labels, Objective
from vaekit.models.vae import VAE
from vaekit.utils.cuda_graphs import CudaGraph, is_capturing
from vaekit.utils.device import out_of_memory
from vaekit.utils.logging import log


class OutOfMemory(UserError):
    """A step does not fit in the memory, and dividing the batch cannot help."""


Report = dict[str, Tensor]


LossFn = Callable[[Tensor, Labels | None, float], tuple[Tensor, Report]]
"""Images, labels and the epoch -> the loss, and named values to log."""


Step = Callable[[Tensor, Labels | None, float], Report]
"""Images, labels and the epoch -> what a step that changed the weights found; the next one may overwrite it."""


@dataclass
class Progress:
    """Where training stands. With the weights and the optimizer's state it is all that a resumed run needs."""

    epoch: int = 0
    """Epochs finished."""
    done: int = 0
    """Steps taken in the epoch that has begun."""
    step: int = 0
    """Steps taken in all."""
    totals: dict[str, float] = field(default_factory=dict)
    """Sums of the epoch's values so far."""
    micro_batches: int = 1
    """Parts that a batch goes through the model in, because the whole did not fit in the memory."""
    eval_micro_batches: int = 1
    """The same for batches of held-out images, which are looked at beside what training keeps in the memory."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Progress":
        """From a checkpoint's state.json, also from one of vaekit 0.1.0, where micro-batches were called pieces."""
        return cls(
            **{
                name.replace("held_out_pieces", "eval_micro_batches").replace("pieces", "micro_batches"): value
                for name, value in state.items()
            }
        )


def make_train_step(
    model: VAE, objective: Objective, optimizer: Optimizer, settings: TrainingConfig, progress: Progress
) -> Step:
    """The function that takes a step, and keeps count in `progress` of the parts that a batch goes through in.

    On an NVIDIA GPU it is recorded once the schedules have reached their final values: with the optimizer's own work
    where that keeps its count of steps on the device.
    """
    loss_fn, parameters = make_loss_fn(model, objective, settings.compile == "on"), list(model.parameters())
    # A noise level that follows the batches would follow their parts, and those of an attempt that failed; so would
    # the averages of a normalisation in a user's own modules
    supports_accumulation = (
        objective.supports_accumulation
        and "any_weights" in provides(model.likelihood)
        and not any(isinstance(module, _BatchNorm) and module.training for module in model.modules())
    )

    def gradient(x: Tensor, y: Labels | None = None, epoch: float = math.inf) -> Report:
        report, progress.micro_batches = compute_gradients(
            loss_fn, x, y, epoch, parameters, progress.micro_batches, supports_accumulation
        )
        return report

    def update() -> None:
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        try:
            optimizer.step()
        except RuntimeError as error:
            device = parameters[0].device
            if not out_of_memory(error) or is_capturing(device):
                raise
            raise OutOfMemory(
                f"What the optimizer keeps of every weight does not fit in the memory of {device}: take a smaller "
                "network, or --optimizer sgd."
            ) from error

    def step(x: Tensor, y: Labels | None = None, epoch: float = math.inf) -> Report:
        report = gradient(x, y, epoch)
        update()
        return report

    if parameters[0].device.type != "cuda" or not model.graph_safe:
        return step
    whole = all(group.get("capturable") for group in optimizer.param_groups)
    recorded = CudaGraph(step if whole else gradient)

    def quick(x: Tensor, y: Labels | None, epoch: float) -> Report:
        if (
            epoch < objective.schedule_end or progress.micro_batches > 1
        ):  # a recording keeps its memory, which is short here
            return step(x, y, epoch)
        report = recorded(x) if y is None else recorded(x, y)
        if not whole:
            update()
        return report

    return quick


def make_loss_fn(model: VAE, objective: Objective, compiled: bool = False) -> LossFn:
    """The objective's value for a batch.

    Compiled, all of it becomes one graph once the schedules have reached their final values, which are then a constant
    of it. A flow would break that graph into pieces and gain nothing: of a model with any, encoder and decoder are.
    """

    def loss_fn(x: Tensor, y: Labels | None, epoch: float) -> tuple[Tensor, Report]:
        return objective(model.terms(x, y, objective.samples), epoch)

    if not compiled:
        return loss_fn
    if any(isinstance(module, LazyTransform) for module in model.modules()):
        for network in (model.encoder, model.decoder):
            network.compile()
        return loss_fn
    # With torch's own random numbers, so that a compiled run draws what another would
    graph: LossFn = torch.compile(loss_fn, options={"fallback_random": True})

    def settled(x: Tensor, y: Labels | None, epoch: float) -> tuple[Tensor, Report]:
        return graph(x, y, math.inf) if epoch >= objective.schedule_end else loss_fn(x, y, epoch)

    return settled


def compute_gradients(
    loss_fn: LossFn,
    x: Tensor,
    y: Labels | None,
    epoch: float,
    parameters: list[nn.Parameter],
    micro_batches: int,
    supports_accumulation: bool,
) -> tuple[Report, int]:
    """Give the weights the gradient of a batch's loss; return the values to log, and the parts it took.

    The batch goes through in `micro_batches` parts, and in twice as many where the memory does not suffice: its
    gradient is the mean of theirs.

    Raises:
        TooLarge: the memory does not suffice, and the batch cannot be divided.
        UserError: the step cannot be compiled here.
    """
    while True:
        for parameter in parameters:  # as the optimizer would, at a fifth of the cost
            parameter.grad = None
        try:
            # In functions of their own, whose tensors are gone where the memory did not suffice
            return (_whole if micro_batches == 1 else partial(_accumulate_gradients, micro_batches=micro_batches))(
                loss_fn, x, y, epoch
            ), micro_batches
        except RuntimeError as error:
            if any(kind.__name__ == "TorchDynamoException" for kind in type(error).__mro__):
                why = str(error).partition(":")[0]
                raise UserError(f"--compile on failed here ({why}): use --compile auto, or off.") from error
            if not out_of_memory(error) or is_capturing(x.device):
                raise
        micro_batches = split_further(micro_batches, len(x), supports_accumulation, x.device)


def _whole(loss_fn: LossFn, x: Tensor, y: Labels | None, epoch: float) -> Report:
    loss, report = loss_fn(x, y, epoch)
    loss.backward()
    return {name: value.detach() for name, value in report.items()}


def _accumulate_gradients(loss_fn: LossFn, x: Tensor, y: Labels | None, epoch: float, micro_batches: int) -> Report:
    report: Report = {}
    images = x.chunk(micro_batches)
    for part, labels in zip(images, [None] * len(images) if y is None else y.chunk(micro_batches), strict=True):
        loss, found = loss_fn(part, labels, epoch)
        share = len(part) / len(x)
        (share * loss).backward()
        for name, value in found.items():
            report[name] = report.get(name, 0) + share * value.detach()
    return report


def split_further(micro_batches: int, size: int, supports_accumulation: bool, device: torch.device) -> int:
    """Twice as many parts, for a batch of `size` images that did not fit in the memory in `micro_batches`.

    Raises:
        TooLarge: it cannot be divided further.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if not supports_accumulation or micro_batches >= size:
        why = "not even one image does" if supports_accumulation else "this model's loss looks at all of it at once"
        raise OutOfMemory(
            f"A batch of {size} images does not fit in the memory of {device}, and {why}: "
            "take a smaller --batch-size, a smaller --size or a smaller network."
        )
    log.info(f"A batch does not fit in the memory of {device}: it goes through in {2 * micro_batches} parts")
    return 2 * micro_batches
