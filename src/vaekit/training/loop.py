"""The training loop. It depends on a train step and batches, and does no file I/O."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaekit.data.loader import ImageLoader
from vaekit.training.step import TrainStep, divide_further, seed_generators
from vaekit.utils.device import RANDOM_NUMBERS, out_of_memory


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass
class Progress:
    """The position of training, from which it resumes."""

    epoch: int = 0
    """Finished epochs."""
    steps_in_epoch: int = 0
    """Steps taken in the current epoch."""
    step: int = 0
    """Steps taken in all."""
    totals: dict[str, float] = field(default_factory=dict)
    """Sums of the metrics over the steps of the current epoch."""


@dataclass(frozen=True)
class EpochResult:
    """The metrics of an epoch, in nats per image."""

    train: dict[str, float]
    """Means over its steps."""
    validation: dict[str, float]
    """Means over the validation images, with EMA weights and schedules at their final values."""
    trained_at: float
    """`time.perf_counter()` after its last step."""


def train(
    train_step: TrainStep,
    loader: ImageLoader,
    epochs: int,
    progress: Progress,
    on_step: Callable[[Tensor], bool],
) -> Iterator[EpochResult]:
    """Train until `epochs` epochs are complete, starting at `progress`, and yield after every epoch.

    `progress` is updated. `on_step` is called with the loss after every step; training stops if it returns
    True.

    Raises:
        Diverged: an epoch's loss is NaN or infinite.
        OutOfMemory: a batch does not fit in memory and cannot be divided.
    """
    steps = loader.steps_per_epoch
    while progress.epoch < epochs:
        train_step.model.train()
        sums = MetricSums(loader.device, progress.totals)
        for x, y in loader.train(progress.epoch, start=progress.steps_in_epoch):
            metrics = train_step(x, y, progress.step)
            sums.add(metrics)
            progress.steps_in_epoch += 1
            progress.step += 1
            stop = on_step(metrics["loss"])
            if stop and progress.steps_in_epoch < steps:  # a complete epoch is validated first
                progress.totals = sums.divided_by(1)
                return
        train_metrics, trained_at = sums.divided_by(steps), time.perf_counter()
        result = EpochResult(train_metrics, evaluate(train_step, loader, "validation"), trained_at)
        for split, means in (("training", result.train), ("validation", result.validation)):
            for name, value in means.items():
                if not math.isfinite(value):
                    raise Diverged(f"the {split} {name} became {value} in epoch {progress.epoch + 1}")
        progress.epoch, progress.steps_in_epoch, progress.totals = progress.epoch + 1, 0, {}
        yield result


@torch.no_grad()
def evaluate(train_step: TrainStep, loader: ImageLoader, split: str) -> dict[str, float]:
    """Mean metrics over a split, under the EMA weights, with noise that is the same at every call.

    Objectives that look at a whole batch (free bits and others) look at one at a time, as in training.
    """
    while True:
        micro_batches = max(train_step.micro_batches, train_step.eval_micro_batches)
        sums, count = MetricSums(loader.device, {}), 0
        batches = loader.split(split, size=max(1, loader.batch_size // micro_batches))
        try:
            for index, (x, y) in enumerate(batches):
                with RANDOM_NUMBERS:
                    seed_generators(x.device, train_step.settings.seed, split, index)
                    sums.add(train_step.eval_step(x, y, micro_batches), len(x))
                count += len(x)
            return sums.divided_by(max(count, 1))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        x = torch.empty(loader.batch_size, device=loader.device)
        train_step.eval_micro_batches = divide_further(micro_batches, x, supports_accumulation=True)


class MetricSums:
    """Running sums of metrics, on the device, so that adding to them does not synchronize."""

    def __init__(self, device: torch.device, start: Mapping[str, float]) -> None:
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.names = tuple(start)
        self.sums = torch.tensor(list(start.values()), dtype=precise, device=device)

    def add(self, metrics: Mapping[str, Tensor], weight: int = 1) -> None:
        """Add the metrics of a batch; their names are the same every time."""
        if not self.names:
            self.names, self.sums = tuple(metrics), self.sums.new_zeros(len(metrics))
        self.sums.add_(torch.stack([metrics[name].detach() for name in self.names]), alpha=weight)

    def divided_by(self, count: int) -> dict[str, float]:
        """The sums divided by a count, on the CPU."""
        return dict(zip(self.names, (self.sums / count).tolist(), strict=True))
