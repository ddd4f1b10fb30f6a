"""metrics.csv of a run."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from vaekit.errors import UserError
from vaekit.runs.folder import Run
from vaekit.utils.files import atomic_file

STILL_FALLING = 0.05
"""Share of the total decrease of the loss in the last fifth of training from which it is still decreasing."""

Row = dict[str, float]
"""An epoch: column -> value."""


def still_falling(losses: Sequence[float], loss_drop: float) -> bool:
    """Whether the validation loss was still decreasing in the last fifth of some epochs.

    `losses` are those after all schedules of the objective have ended; `loss_drop` is the total decrease.
    """
    if not losses or losses[-1] > min(losses):
        return False
    last = max(1, len(losses) // 5)
    return len(losses) == 1 or losses[-1 - last] - losses[-1] > STILL_FALLING * loss_drop


def read_metrics(run: Run) -> list[Row]:
    """The rows of metrics.csv, without a last line cut short by a crash; UserError if it is damaged."""
    if not run.metrics.exists():
        return []
    with run.metrics.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in (*row, *row.values())]
    try:
        return [{name: float(cell or "nan") for name, cell in row.items()} for row in rows]
    except ValueError:
        raise UserError(f"{run.metrics} is damaged.", "Restore it from a copy, or delete it.") from None


def append_metrics(run: Run, row: Row) -> None:
    """Append an epoch; the first one also writes the header."""
    _append(run.metrics, [row], with_header=not run.metrics.exists())


def keep_metrics(run: Run, rows: list[Row]) -> None:
    """Replace metrics.csv by `rows`."""
    if rows:
        with atomic_file(run.metrics) as temporary:
            _append(temporary, rows, with_header=True)
    else:
        run.metrics.unlink(missing_ok=True)


def _append(path: Path, rows: list[Row], with_header: bool) -> None:
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        if with_header:
            writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: float) -> str:
    """A number that reads back exactly; empty for NaN, such as the KL divergence of a point posterior."""
    if math.isnan(value):
        return ""
    integral = float(value).is_integer() and abs(value) < 1e15
    return str(int(value)) if integral else repr(float(value))
