"""metrics.csv of a run."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from vaekit.errors import UserError
from vaekit.runs.folder import Run
from vaekit.utils.files import write_text

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
        lines = list(csv.reader(file))
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    try:
        complete = [zip(header, row, strict=True) for row in rows if len(row) == len(header)]
        return [{name: float(cell or "nan") for name, cell in cells} for cells in complete]
    except ValueError:
        raise UserError(f"{run.metrics} is damaged.", "Restore it from a copy, or delete it.") from None


def append_metrics(run: Run, row: Row) -> None:
    """Append an epoch; the first one also writes the header."""
    new = not run.metrics.exists()
    with run.metrics.open("a", newline="", encoding="utf-8") as file:
        file.write((_line(row.keys()) if new else "") + _line(_cell(value) for value in row.values()))


def keep_metrics(run: Run, rows: list[Row]) -> None:
    """Replace metrics.csv by `rows`."""
    if rows:
        write_text(run.metrics, _line(rows[0]) + "".join(_line(map(_cell, row.values())) for row in rows))
    else:
        run.metrics.unlink(missing_ok=True)


def _line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(value: float) -> str:
    """A number that reads back exactly; empty for NaN, such as the KL divergence of a point posterior."""
    if math.isnan(value):
        return ""
    integral = float(value).is_integer() and abs(value) < 1e15
    return str(int(value)) if integral else repr(float(value))
