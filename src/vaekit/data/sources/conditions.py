"""Conditions of images from columns of a table, and those that a user asks for: vectors of numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from vaekit.config.data import DataConfig
from vaekit.data.sources.columns import Column, column_of
from vaekit.data.sources.table_files import tables_in
from vaekit.data.sources.tables import MatchedTable, contradictions, is_missing
from vaekit.errors import UserError, setting
from vaekit.utils.logging import log

CAPTION_COLUMNS = 4
"""Conditions of more columns are not written under an image."""
NAMED_COLUMNS = 5
"""Columns with missing values that are named, at most."""
FAR = 0.25
"""A number outside of the range of the training images by more than this share of it is far from them."""
Condition = str | Mapping[str, Any]
"""What a user asks for: "smiling=1,age=30", or a dictionary from columns to values."""


@dataclass(frozen=True)
class Conditions:
    """The columns that images are conditioned on, and their numbers."""

    columns: tuple[Column, ...]
    values: Float32[np.ndarray, "N K"]
    """The vectors of all columns one after the other, for every image."""

    def rows(self, rows: NDArray[np.intp]) -> "Conditions":
        return Conditions(self.columns, self.values[rows])


def require_table(settings: DataConfig, folder: Path | None, conditional: bool = False) -> None:
    """Raise UserError for conditions without a table or with something that they exclude.

    Args:
        settings: of the data.
        folder: that of the images, in which a table may lie.
        conditional: whether the model is to be conditioned on classes.
    """
    if settings.condition is None:
        return
    if settings.labels is None:
        near = tables_in(folder) if folder is not None else []
        table = (
            setting("labels", near[0])
            if len(near) == 1
            else f"{setting('labels')} and a .csv, .json or .parquet file"
        )
        hint = f"Add {table} with a row for each image."
        raise UserError("needs a table of the columns.", hint, "condition")
    for name, given in (("conditional", conditional), ("label_column", settings.label_column is not None)):
        if given:
            text = f"{setting('condition')} and {setting(name)} exclude each other"
            reason = "with the first, images have columns of a table in the place of a class"
            raise UserError(f"{text}: {reason}.", "One of them suffices.")


def conditions_of_files(table: MatchedTable, names: str) -> tuple[Conditions, list[str]]:
    """The conditions of every file, and notes on what the columns were taken for.

    Args:
        table: the table.
        names: the names of columns, separated by commas.

    Raises:
        UserError: a column does not exist or cannot be used.
    """
    cells = {name: _cells(table, name) for name in names.split(",")}
    columns = tuple(column_of(name, values, table.name) for name, values in cells.items())
    notes = [f"Conditions from {table.name}: {', '.join(column.description for column in columns)}."]
    notes += [*table.notes, *(note for name in cells for note in contradictions(table, name))]
    notes += _missing_notes(columns, cells, table)
    return Conditions(columns, _vectors(columns, cells)), notes


def vectors_of_files(table: MatchedTable, columns: Sequence[Column]) -> Float32[np.ndarray, "N K"]:
    """The conditions of files by the columns of a trained model."""
    return _vectors(columns, {column.name: _cells(table, column.name) for column in columns})


def vector_of(columns: Sequence[Column], given: Condition) -> Float32[np.ndarray, " K"]:
    """The vector of the conditions that a user gives.

    Columns that are not given are at their average, which is logged; numbers far from the training images are
    warned of.

    Raises:
        UserError: an unknown column or value.
    """
    values = _parse(given)
    known = {column.name: column for column in columns}
    if unknown := [name for name in values if name not in known]:
        listed = ", ".join(column.description for column in columns)
        raise UserError(f"There is no condition {unknown[0]!r}.", f"Conditions: {listed}.", "condition")
    vector: list[float] = []
    for column in columns:
        vector += column.vector(values[column.name]) if column.name in values else column.average
        if column.kind == "number" and column.name in values:
            number = vector[-1] * column.std + column.mean
            reach = FAR * (column.high - column.low)
            if not column.low - reach <= number <= column.high + reach:
                span = f"{column.low:.4g} to {column.high:.4g}"
                log.warning(f"{column.name}={number:.4g} is far from the training images, with {span}.")
    if open_columns := [name for name in known if name not in values]:
        verb = "is at its average" if len(open_columns) == 1 else "are at their averages"
        log.info(f"Not given: {', '.join(open_columns)}, which {verb} of the training images.")
    return np.array(vector, np.float32)


def captions(columns: Sequence[Column], vectors: NDArray[np.float32]) -> list[str] | None:
    """A line such as "age=34" for each column, for each of the vectors [N, K]; None for many columns."""
    if not 0 < len(columns) <= CAPTION_COLUMNS:
        return None
    texts = columns_of_texts(columns, vectors)
    return ["\n".join(f"{name}={cells[row]}" for name, cells in texts.items()) for row in range(len(vectors))]


def columns_of_texts(columns: Sequence[Column], vectors: NDArray[np.float32]) -> dict[str, list[str]]:
    """The values of each column as texts, for each of the vectors [N, K]."""
    ends = np.cumsum([column.width for column in columns])[:-1]
    parts = [part.tolist() for part in np.split(vectors, ends, axis=1)]
    return {
        column.name: [column.text(numbers) for numbers in part]
        for column, part in zip(columns, parts, strict=True)
    }


def width_of(columns: Sequence[Column]) -> int:
    """Numbers in a vector of conditions."""
    return sum(column.width for column in columns)


def _parse(given: Condition) -> dict[str, Any]:
    """The values by column. A part of a text without "=" continues the value before it."""
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    pairs: list[tuple[str, str]] = []
    for part in given.split(","):
        name, equals, value = part.partition("=")
        if equals:
            pairs.append((name.strip(), value.strip()))
        elif pairs:
            pairs[-1] = pairs[-1][0], f"{pairs[-1][1]},{part}"
        elif part.strip():
            raise UserError(f"{part.strip()!r} has no value.", "Write such as age=30,smiling=1.", "condition")
    return dict(pairs)


def _cells(table: MatchedTable, name: str) -> list[Any]:
    """The cells of a column for every file; None where it has no row."""
    if name not in table.frame.columns:
        others = ", ".join(other for other in table.frame.columns if other != table.files)
        raise UserError(f"{table.name} has no column {name!r}.", f"It has {others}.", "condition")
    return table.cells(name)


def _vectors(columns: Sequence[Column], cells: Mapping[str, Sequence[Any]]) -> NDArray[np.float32]:
    return np.concatenate([column.vectors(cells[column.name]) for column in columns], axis=1)


def _missing_notes(
    columns: Sequence[Column],
    cells: Mapping[str, Sequence[Any]],
    table: MatchedTable,
) -> list[str]:
    """How many images have no row, and no value in each column, and what that counts as."""
    facts, counts = [], dict[str, int]()
    if without := sum(row is None for row in table.rows):
        images = "1 image has" if without == 1 else f"{without:,} images have"
        facts.append(f"{images} no row in {table.name}")
    for column in columns:
        values = cells[column.name]
        empty = sum(is_missing(cell) for cell, row in zip(values, table.rows, strict=True) if row is not None)
        if empty:
            counts[column.name] = empty
    if counts:
        named = [f"{count:,} no {name}" for name, count in list(counts.items())[:NAMED_COLUMNS]]
        facts.append(f"in rows of images, {', '.join(named)}{', ...' if len(counts) > NAMED_COLUMNS else ''}")
    if not facts:
        return []
    text = "; ".join(facts)
    counted = (
        "What is missing counts as the average of a number and of yes or no, and as none of other values"
    )
    return [f"{text[:1].upper()}{text[1:]}. {counted}."]
