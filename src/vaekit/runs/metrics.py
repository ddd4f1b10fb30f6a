"""metrics.csv of a run, and what its curves say."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from vaekit.errors import UserError
from vaekit.runs.folder import Run
from vaekit.utils.files import write_text


def still_falling(losses: Sequence[float], loss_drop: float) -> bool:
    """Whether the last fifth of some epochs brought a good part of all that the validation loss fell by."""
    if not losses or losses[-1] > min(losses):
        return False
    last = max(1, len(losses) // 5)
    return len(losses) == 1 or losses[-1 - last] - losses[-1] > STILL_FALLING * loss_drop


STILL_FALLING = 0.05
"""Of all that the loss fell by, the part it fell by in the last fifth of training."""


# --- metrics.csv -----------------------------------------------------------------------------------------------------

Row = dict[str, float]


def read_metrics(run: Run) -> list[Row]:
    """The rows of metrics.csv; a last line that a crash cut short is left out.

    Raises:
        UserError: it is damaged.
    """
    if not run.metrics.exists():
        return []
    with run.metrics.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    try:
        return [
            {name: float(cell or "nan") for name, cell in zip(header, row, strict=True)}
            for row in rows
            if len(row) == len(header)
        ]
    except ValueError:
        raise UserError(f"{run.metrics} is damaged: restore it from a copy, or delete it.") from None


def append_metrics(run: Run, row: Row) -> None:
    """One epoch's row, with the header before the first."""
    new = not run.metrics.exists()
    with run.metrics.open("a", newline="", encoding="utf-8") as file:
        file.write((_line(row.keys()) if new else "") + _line(_cell(value) for value in row.values()))


def keep_metrics(run: Run, rows: list[Row]) -> None:
    """Replace metrics.csv by `rows`: what a resumed run goes on from."""
    if rows:
        write_text(run.metrics, _line(rows[0]) + "".join(_line(map(_cell, row.values())) for row in rows))
    else:
        run.metrics.unlink(missing_ok=True)


def _line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(value: float) -> str:
    """A number as it reads back; nothing for one that does not exist, such as the KL of a posterior without noise."""
    if math.isnan(value):
        return ""
    return str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e15 else repr(float(value))
