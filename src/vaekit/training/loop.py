"""The one training loop. It knows a model, batches, an objective and an optimizer; it knows no files."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor
from torch.optim import Optimizer

from vaekit.data.batches import Batches
from vaekit.model import VAE
from vaekit.parts.types import Objective
from vaekit.seeds import key
from vaekit.settings import Training
from vaekit.training.optimizers import learning_rate, moving_average
from vaekit.training.step import gradients, scorer


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


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
    pieces: int = 1
    """Parts that a batch goes through the model in, because the whole did not fit in the memory."""


@dataclass(frozen=True)
class Epoch:
    """What the loop reports when an epoch has ended: the objective's values, in nats per image."""

    train: dict[str, float]
    validation: dict[str, float]


def train(
    model: VAE,
    kept: VAE,
    batches: Batches,
    objective: Objective,
    optimizer: Optimizer,
    settings: Training,
    progress: Progress,
    on_step: Callable[[Tensor], bool],
) -> Iterator[Epoch]:
    """Train `model`, and its moving average `kept`, from `progress` on; yield after every epoch.

    `on_step` is given the loss after every step; where it returns True training stops there, between two steps. All
    random numbers are keyed by the step, so that a stopped and resumed run takes the very steps of an unbroken one.

    Raises:
        Diverged: an epoch's loss is NaN or infinite.
        UserError: the memory does not suffice for a batch that cannot be divided.
    """
    steps, labelled = batches.steps_per_epoch, model.classes > 0
    score = scorer(model, objective, settings.compile == "on")
    parameters, follow = list(model.parameters()), moving_average(kept, model, settings.ema)
    while progress.epoch < settings.epochs:
        model.train()
        totals = Sums(batches.device, progress.totals)
        for x, y in batches.train(progress.epoch, start=progress.done):
            reseed(x.device, settings.seed, "noise", progress.step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, progress.step, settings.epochs * steps)
            y = y if labelled else None
            report, progress.pieces = gradients(
                score, x, y, progress.step / steps, optimizer, progress.pieces, objective.divisible
            )
            if settings.clip:
                torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            follow(progress.step)
            totals.add(report)
            progress.done += 1
            progress.step += 1
            if on_step(report["loss"]) and progress.done < steps:  # an epoch whose steps are all taken is ended first
                progress.totals = totals.over(1)
                return
        held_out = evaluate(kept, batches, "validation", objective, settings.seed)
        result = Epoch(totals.over(steps), held_out)
        for side, found in (("training", result.train), ("validation", held_out)):
            if not all(map(math.isfinite, found.values())):
                raise Diverged(f"the {side} loss became {found['loss']} in epoch {progress.epoch + 1}")
        progress.epoch, progress.done, progress.totals = progress.epoch + 1, 0, {}
        yield result


@torch.no_grad()
def evaluate(model: VAE, batches: Batches, side: str, objective: Objective, seed: int) -> dict[str, float]:
    """The mean of every value over all images of a side, at the objective's final schedules, with noise that is the
    same at every call. Free bits look at a batch at a time, as in training."""
    training = model.training
    model.eval()
    totals, count = Sums(batches.device), 0
    for index, (x, y) in enumerate(batches.side(side)):
        reseed(x.device, seed, side, index)
        _, report = objective(model.terms(x, y if model.classes else None, objective.samples))
        totals.add(report, len(x))
        count += len(x)
    model.train(training)
    return totals.over(max(count, 1))


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


def reseed(device: torch.device, *words: int | str) -> None:
    """Seed the generator that noise on `device` is drawn from."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(key(*words))
    else:
        torch.manual_seed(key(*words))
