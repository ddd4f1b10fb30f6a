"""Callbacks: what happens around the training loop besides training."""

import math
from dataclasses import dataclass, field
from typing import Any

from vaekit.runs.commands import resume_command
from vaekit.runs.folder import Run
from vaekit.runs.metadata import DatasetSummary
from vaekit.runs.metrics import Row, append_metrics
from vaekit.training.background_writer import BackgroundWriter
from vaekit.training.loop import EpochResult, Progress
from vaekit.training.plan import Plan
from vaekit.training.request import TrainRequest
from vaekit.training.step import TrainStep
from vaekit.utils.logging import log

COMMON_METRICS = ("loss", "reconstruction", "kl")
"""Metrics whose columns metrics.csv always has; others that an objective reports come after them."""


@dataclass(frozen=True)
class BestEpoch:
    """The epoch with the lowest validation loss so far; 0 before the first."""

    epoch: int = 0
    step: int = 0
    loss: float | None = None
    """Nats per image."""


@dataclass
class TrainingState:
    """What callbacks see of a training session."""

    plan: Plan
    request: TrainRequest
    train_step: TrainStep
    loader: Any
    """An `ImageLoader`, or the `LatentLoader` of the second stage."""
    background: BackgroundWriter = field(default_factory=BackgroundWriter)
    """Writes files while training continues."""
    progress: Progress = field(default_factory=Progress)
    best: BestEpoch = field(default_factory=BestEpoch)
    name: str = "epoch"
    """What a progress bar counts."""
    stop_requested: bool = False
    """A signal asks for a stop after this step."""
    finish_up: bool = False
    """After the stop the sampling prior is fitted and the report written, as after the last epoch."""
    trained: bool = False
    """Whether this session took any step."""

    @property
    def run(self) -> Run:
        """The run folder."""
        return self.plan.run

    @property
    def improved(self) -> bool:
        """Whether the epoch that has just ended is the best so far."""
        return self.best.epoch == self.progress.epoch > 0

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping has ended the run."""
        settings = self.plan.config.training
        if self.progress.epoch >= settings.epochs:
            return True
        counted_from = max(self.best.epoch, self.plan.objective.schedule_end)
        return settings.patience > 0 and self.progress.epoch - counted_from >= settings.patience

    def how_to_resume(self, epochs: int | None = None) -> str:
        """A sentence with the whole command, up to `epochs` if given."""
        dataset = DatasetSummary.model_validate(self.plan.pack.describe())
        return f"Continue: {resume_command(self.plan.metadata, dataset, self.run.main, epochs)}"


class Callback:
    """Base class of callbacks; every method does nothing unless it is overridden.

    A new callback is a subclass, given to `vaekit.train(..., callbacks=[...])`. Only the process that writes
    the run calls them.
    """

    def on_train_begin(self, state: TrainingState) -> None:
        """Before the first step of this session; a resumed run is restored by then."""

    def on_epoch_end(self, state: TrainingState, result: EpochResult, row: Row) -> None:
        """After every epoch, validation included; `row` is what metrics.csv says of it."""

    def on_train_end(self, state: TrainingState) -> None:
        """After the last step of this session. Jobs of `state.background` are done before `on_saved`."""

    def on_saved(self, state: TrainingState) -> None:
        """When everything is on the disk, unless the session was interrupted and should end at once."""


class MetricsWriter(Callback):
    """Appends a row to metrics.csv after every epoch."""

    def on_epoch_end(self, state: TrainingState, result: EpochResult, row: Row) -> None:
        append_metrics(state.run, row)


class ConsoleLogger(Callback):
    """Prints a line for every epoch, and how training ended."""

    def on_epoch_end(self, state: TrainingState, result: EpochResult, row: Row) -> None:
        epochs = state.plan.config.training.epochs
        log.info(
            f"{state.name} {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {result.train['loss']:.2f}  "
            f"validation {_format_metrics(result.validation)}  {row['images_per_second']:,.0f} images/s"
            f"{'  best' if state.improved else ''}"
        )

    def on_saved(self, state: TrainingState) -> None:
        if state.trained and state.finished:
            best = state.best
            log.info(f"Best validation loss: {best.loss:.2f} nats per image, in epoch {best.epoch}")


def metrics_row(state: TrainingState, result: EpochResult, stats: dict[str, float]) -> Row:
    """A row of metrics.csv: epoch, step, clock, then every metric of training and validation."""
    row: Row = {"epoch": state.progress.epoch, "step": state.progress.step, **stats}
    others = [name for name in result.train if name not in COMMON_METRICS]
    for names in (list(COMMON_METRICS), others):
        for split, metrics in (("train", result.train), ("val", result.validation)):
            row |= {f"{split}_{name}": metrics.get(name, math.nan) for name in names}
    return row


def _format_metrics(metrics: dict[str, float]) -> str:
    """`236.30 (KL 14.08)`: the loss, and what the objective reports besides the reconstruction."""
    names = {"kl": "KL", "mmd": "MMD", "l2": "L2"}
    others = [name for name in metrics if name not in ("loss", "reconstruction")]
    terms = [f"{names.get(name, name.replace('_', ' '))} {_short(metrics[name])}" for name in others]
    return f"{metrics['loss']:.2f}" + (f" ({', '.join(terms)})" if terms else "")


def _short(value: float) -> str:
    return f"{value:z.2f}" if abs(value) >= 1 or value == 0 else f"{value:z.3g}"
