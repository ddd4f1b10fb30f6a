"""Whether a run has been trained enough, and how much more it needs: for the end of training, and for the
diagnosis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vaekit.config.config import Config
from vaekit.runs.folder import Run
from vaekit.runs.metrics import Row, read_metrics, still_falling

MIN_STEPS = 1000
"""Steps below which a model has only begun to learn."""
RISEN_SHARE, RISEN_NATS = 0.02, 0.5
"""Rise of the validation loss after its minimum that is more than noise: share of all that it fell by, and
nats."""


@dataclass(frozen=True)
class Unfinished:
    """Why a run is unfinished."""

    text: str
    """In a sentence or two, with how many more epochs and minutes it needs."""
    epochs: int | None
    """Epochs in all to resume to; None for as many as were asked for."""


def unfinished(run: Run, config: Config, schedule_end: float) -> Unfinished | None:
    """Whether a run was stopped early, had too few steps, or was still improving at its end; None if it needs
    no more training. All figures count from the steps that were done.

    `schedule_end` is the epoch at which the objective's schedules end.
    """
    rows = read_metrics(run)
    if not rows:
        return None
    settings, steps, done = config.training, round(rows[-1]["step"]), round(rows[-1]["epoch"])
    losses = [row["val_loss"] for row in rows]
    counted = [row["val_loss"] for row in rows if row["epoch"] > schedule_end]
    drop = losses[0] - min(losses)
    best = losses.index(min(losses)) + 1
    ended = settings.patience > 0 and done - best >= settings.patience
    later = sum(row["seconds"] for row in read_metrics(run.second_stage))
    if done < settings.epochs and not ended:
        reason = f"Training was stopped after {done:,} of {settings.epochs:,} epochs ({steps:,} steps)."
        return Unfinished(f"{reason} {_more(rows, settings.epochs - done, later)}", None)
    if second := _second_stage(run, config):
        return second
    if steps < MIN_STEPS and not has_risen(counted, drop):
        epochs = max(2 * done, math.ceil(done * MIN_STEPS / max(1, steps)))
        count = f"{steps:,} step{'s' if steps > 1 else ''}"
        reason = f"Training took {count} only; most models need several thousand."
        return Unfinished(f"{reason} {_more(rows, epochs - done, later)}", epochs)
    if settings.schedule == "constant" and still_falling(counted, drop):
        reason = f"The validation loss was still falling after {done:,} epochs."
        return Unfinished(f"{reason} {_more(rows, done, later)}", 2 * done)
    return None


def has_risen(losses: Sequence[float], drop: float) -> bool:
    """Whether the validation loss has risen since its minimum; `drop` is all that it fell by."""
    return bool(losses) and losses[-1] - min(losses) > max(RISEN_NATS, RISEN_SHARE * drop)


def _second_stage(run: Run, config: Config) -> Unfinished | None:
    """Whether the second stage was stopped early."""
    planned, rows = config.flow_matching.steps, read_metrics(run.second_stage)
    if config.latent_prior != "flow_matching" or not rows or not planned:
        return None
    done = round(rows[-1]["step"])
    per_epoch = done / max(1.0, rows[-1]["epoch"])
    if done + per_epoch > planned:  # steps are rounded to epochs
        return None
    seconds = (planned - done) * sum(row["seconds"] for row in rows) / done
    text = f"Flow matching was stopped after {done:,} of {planned:,} steps."
    return Unfinished(f"{text} The others take about {duration(seconds)}.", None)


def _more(rows: Sequence[Row], epochs: int, later: float) -> str:
    """How long more epochs take, with the `later` seconds of a second stage, which is then trained again."""
    seconds = epochs * sum(row["seconds"] for row in rows) / len(rows) + later
    more = f"{epochs:,} more epoch{'s' if epochs > 1 else ''}{' and flow matching again' if later else ''}"
    return f"{more} take{'s' if epochs == 1 and not later else ''} about {duration(seconds)}."


def duration(seconds: float) -> str:
    """A time in its largest unit, for an estimate."""
    for unit, size in (("hour", 3600), ("minute", 60)):
        if (count := seconds / size) >= 1.5:
            return f"{count:.0f} {unit}s"
    return f"{max(1, round(seconds))} seconds" if seconds >= 1.5 else "a second"
