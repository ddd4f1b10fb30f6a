"""The one training loop. It knows a model, batches, an objective and an optimizer; it knows no files."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.optim import Optimizer

from vaekit.config.training import TrainingConfig
from vaekit.data.loader import ImageLoader
from vaekit.models.terms import Labels, Objective
from vaekit.models.vae import VAE
from vaekit.training.ema import make_ema_update
from vaekit.training.optimizers import learning_rate, set_learning_rate
from vaekit.training.step import Progress, Report, make_train_step, split_further
from vaekit.utils.cuda_graphs import CudaGraph
from vaekit.utils.device import out_of_memory
from vaekit.utils.random import derive_seed


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Epoch:
    """What the loop reports when an epoch has ended: the objective's values, in nats per image."""

    train: dict[str, float]
    validation: dict[str, float]
    trained: float
    """When the last of its steps was done, on the clock of `time.perf_counter`."""


def train(
    model: VAE,
    ema_model: VAE,
    batches: ImageLoader,
    objective: Objective,
    optimizer: Optimizer,
    settings: TrainingConfig,
    progress: Progress,
    on_step: Callable[[Tensor], bool],
) -> Iterator[Epoch]:
    """Train `model`, and its moving average `ema_model`, from `progress` on; yield after every epoch.

    `on_step` is given the loss after every step; where it returns True training stops there, between two steps. All
    random numbers are keyed by the step, so that a stopped and resumed run takes the very steps of an unbroken one.

    Raises:
        Diverged: an epoch's loss is NaN or infinite.
        UserError: the memory does not suffice for a batch that cannot be divided.
    """
    steps, labelled = batches.steps_per_epoch, model.classes > 0
    train_step = make_train_step(model, objective, optimizer, settings, progress)
    update_ema = make_ema_update(ema_model, model, settings.ema)
    eval_step: Callable[..., Report] = partial(values, ema_model, objective)
    if model.graph_safe:
        eval_step = CudaGraph(eval_step)
    while progress.epoch < settings.epochs:
        model.train()
        totals = Sums(batches.device, progress.totals)
        for x, y in batches.train(progress.epoch, start=progress.done):
            seed_generators(x.device, settings.seed, "noise", progress.step)
            set_learning_rate(optimizer, learning_rate(settings, progress.step, settings.epochs * steps))
            report = train_step(x, y if labelled else None, progress.step / steps)
            update_ema(progress.step)
            totals.add(report)
            progress.done += 1
            progress.step += 1
            if on_step(report["loss"]) and progress.done < steps:  # an epoch whose steps are all taken is ended first
                progress.totals = totals.over(1)
                return
        means, trained = totals.over(steps), time.perf_counter()
        held_out = evaluate(ema_model, batches, "validation", objective, settings.seed, eval_step, progress)
        result = Epoch(means, held_out, trained)
        for split, found in (("training", result.train), ("validation", held_out)):
            if not all(map(math.isfinite, found.values())):
                raise Diverged(f"the {split} loss became {found['loss']} in epoch {progress.epoch + 1}")
        progress.epoch, progress.done, progress.totals = progress.epoch + 1, 0, {}
        yield result


@torch.no_grad()
def evaluate(
    model: VAE,
    batches: ImageLoader,
    split: str,
    objective: Objective,
    seed: int,
    eval_step: Callable[..., Report] | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """The mean of every value over all images of a side, at the objective's final schedules, with noise that is the
    same at every call. Free bits look at a batch at a time, as in training.

    Args:
        judge: `values` of this model, where that is called more often.
        progress: counts the parts that batches go through in where the memory does not suffice.
    """
    training, progress = model.training, progress or Progress()
    model.eval()
    try:
        while True:
            micro_batches = max(progress.micro_batches, progress.eval_micro_batches)
            once = eval_step if eval_step and micro_batches == 1 else partial(values, model, objective)
            try:
                return _means(once, batches, split, model.classes > 0, seed, micro_batches)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            progress.eval_micro_batches = split_further(micro_batches, batches.batch_size, True, batches.device)
    finally:
        model.train(training)


def _means(
    eval_step: Callable[..., Report], batches: ImageLoader, split: str, labelled: bool, seed: int, micro_batches: int
) -> dict[str, float]:
    totals, count = Sums(batches.device), 0
    for index, (x, y) in enumerate(batches.split(split, size=max(1, batches.batch_size // micro_batches))):
        seed_generators(x.device, seed, split, index)
        totals.add(eval_step(x) if y is None or not labelled else eval_step(x, y), len(x))
        count += len(x)
    return totals.over(max(count, 1))


def values(model: VAE, objective: Objective, x: Tensor, y: Labels | None = None) -> Report:
    """The objective's values for a batch, at its final schedules."""
    return objective(model.terms(x, y, objective.samples))[1]


class Sums:
    """Running sums of reported values, on the device, so that adding to them never waits for it."""

    def __init__(self, device: torch.device, start: Mapping[str, float] = MappingProxyType({})) -> None:
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.names = tuple(start)
        self.totals = torch.tensor(list(start.values()), dtype=precise, device=device)

    def add(self, report: Mapping[str, Tensor], weight: int = 1) -> None:
        """Add the values of a batch; their names are the same every time."""
        if not self.names:
            self.names, self.totals = tuple(report), self.totals.new_zeros(len(report))
        self.totals.add_(torch.stack([report[name].detach() for name in self.names]), alpha=weight)

    def over(self, count: int) -> dict[str, float]:
        return dict(zip(self.names, (self.totals / count).tolist(), strict=True))


def seed_generators(device: torch.device, *words: int | str) -> None:
    """Seed the generators that noise on `device`, and on the processor, is drawn from."""
    seed = derive_seed(*words)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed asks after every kind of device first
