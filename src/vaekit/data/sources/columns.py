"""Columns of a table as numbers: a part of the vector of conditions of an image for each."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from pydantic import BaseModel

from vaekit.data.sources.tables import is_missing, text_of
from vaekit.errors import UserError
from vaekit.utils.files import natural_sort_key

SEPARATORS = "|;"
"""Between the values of a cell with several."""
NO, YES = ("0", "-1", "false", "no"), ("1", "1", "true", "yes")
"""The pairs of values of a column of kind "yes or no", in any case."""
MAX_VALUES = 1000
"""A category has no more values than these ..."""
MAX_SHARE, FEW_VALUES = 0.5, 20
"""... and no more than this share of the images, if it has more than so many."""
MAX_SHOWN = 20
"""Values that an error lists, at most."""
LISTED = 5
"""Values that a description lists, at most."""


class Column(BaseModel, frozen=True):
    """How the cells of a column become numbers.

    A number is standardized. "yes or no" is 1 or 0. A category is 1 at the place of its value in `values` and
    0 elsewhere, a list is 1 at the places of all its values.
    """

    name: str
    kind: Literal["number", "yes or no", "category", "list"]
    values: tuple[str, ...] = ()
    """The values of a category or a list; no and yes as the table has them."""
    mean: float = 0.0
    """Of a number over the images that have one, with the standard deviation, the lowest and the highest."""
    std: float = 1.0
    low: float = 0.0
    high: float = 1.0
    average: tuple[float, ...]
    """The mean of the vectors of the images that have a value."""

    @property
    def width(self) -> int:
        """Numbers in the vector."""
        return len(self.average)

    @property
    def missing(self) -> tuple[float, ...]:
        """The vector of an image without a value: the average, or no value of a category or list."""
        return self.average if self.kind in ("number", "yes or no") else (0.0,) * self.width

    def vector(self, value: Any) -> list[float]:
        """The numbers of one value.

        Raises:
            UserError: it is not a number, or not one of the values.
        """
        if self.kind == "number":
            return [(self._number(value) - self.mean) / self.std]
        if self.kind == "yes or no":
            return [self._share(value)]
        given = items(value) if self.kind == "list" else [word(value)]
        if unknown := [item for item in given if item not in self.values]:
            listed = ", ".join(self.values[:MAX_SHOWN]) + (", ..." if len(self.values) > MAX_SHOWN else "")
            raise UserError(f"{self.name!r} has no value {unknown[0]!r}.", f"It has {listed}.")
        return [float(name in given) for name in self.values]

    def vectors(self, cells: Sequence[Any]) -> NDArray[np.float32]:
        """The numbers [N, width] of cells."""
        rows = [self.missing if is_missing(cell) else self.vector(cell) for cell in cells]
        return np.array(rows, np.float32).reshape(len(cells), self.width)

    def text(self, vector: Sequence[float]) -> str:
        """The value with this vector, such as "34", "yes", "black" or "cat|dog"; what lies between values of
        a category is "average"."""
        if self.kind == "number":
            return f"{vector[0] * self.std + self.mean:.4g}"
        if self.kind == "yes or no":
            return self.values[round(vector[0])] if vector[0] in (0, 1) else f"{vector[0]:.2g}"
        if not set(vector) <= {0, 1}:
            return "average"
        return "|".join(name for name, number in zip(self.values, vector, strict=True) if number) or "none"

    @property
    def description(self) -> str:
        """Such as "age (number, 3 to 80)"."""
        if self.kind == "number":
            return f"{self.name} (number, {self.low:.4g} to {self.high:.4g})"
        if self.kind == "yes or no":
            return f"{self.name} (yes or no)"
        listed = ", ".join(self.values[:LISTED]) + (", ..." if len(self.values) > LISTED else "")
        count = f"{len(self.values):,}: " if len(self.values) > LISTED else ""
        return f"{self.name} ({'one' if self.kind == 'category' else 'any'} of {count}{listed})"

    def _number(self, value: Any) -> float:
        number = as_number(value)
        if number is None:
            raise UserError(f"{self.name!r} is a number (got {value!r}).", f"Such as {self.mean:.4g}.")
        return number

    def _share(self, value: Any) -> float:
        text = word(value).lower()
        if text in NO or text in YES:
            return float(text in YES)
        number = as_number(value)
        if number is None or not 0 <= number <= 1:
            no, yes = self.values
            raise UserError(f"{self.name!r} is {no} or {yes} (got {value!r}).", "Give one of them.")
        return number


def column_of(name: str, cells: Sequence[Any], table: str) -> Column:
    """Choose how a column becomes numbers by its values, those of all images.

    - Lists, or texts with | or ;, are lists.
    - Two values 0 and 1, -1 and 1, false and true, or no and yes, in any case, are "yes or no".
    - Other numbers are numbers; other texts are categories.

    Raises:
        UserError: there is only one value, or too many for a category.
    """
    present = [cell for cell in cells if not is_missing(cell)]
    several = any(is_list(cell) or any(mark in str(cell) for mark in SEPARATORS) for cell in present)
    distinct = {"|".join(sorted(items(cell))) if several else word(cell) for cell in present}
    if len(distinct) < 2:
        only = f"only the value {next(iter(distinct))!r}" if distinct else "no values"
        message = f"Column {name!r} of {table} has {only} for these images, which is no condition."
        raise UserError(message, "Choose other columns.", "condition")
    if several:
        return _choice(
            name, "list", sorted({item for cell in present for item in items(cell)}), present, table
        )
    for no, yes in zip(NO, YES, strict=True):
        if {text.lower() for text in distinct} == {no, yes}:
            share = np.mean([word(cell).lower() == yes for cell in present]).item()
            return Column(name=name, kind="yes or no", values=(no, yes), average=(share,))
    numbers = [as_number(cell) for cell in present]
    known = np.array([number for number in numbers if number is not None])
    if len(known) == len(numbers):
        mean, std = known.mean().item(), known.std().item()
        low, high = known.min().item(), known.max().item()
        return Column(name=name, kind="number", mean=mean, std=std, low=low, high=high, average=(0.0,))
    return _choice(name, "category", distinct, present, table)


def _choice(
    name: str,
    kind: Literal["category", "list"],
    values: Sequence[str] | set[str],
    present: Sequence[Any],
    table: str,
) -> Column:
    count = len(values)
    if count > MAX_VALUES or (kind == "category" and count > max(MAX_SHARE * len(present), FEW_VALUES)):
        message = f"Column {name!r} of {table} has {count:,} different values for {len(present):,} images"
        raise UserError(f"{message}, which are too many.", "Choose other columns.", "condition")
    ordered = tuple(sorted(values, key=natural_sort_key))
    column = Column(name=name, kind=kind, values=ordered, average=(0.0,) * count)
    average = tuple(column.vectors(present).mean(0, dtype=np.float64).tolist())
    return column.model_copy(update={"average": average})


def word(value: Any) -> str:
    """A value as text, without spaces around it."""
    return text_of(value).strip()


def is_list(cell: Any) -> bool:
    return isinstance(cell, (list, tuple, set, np.ndarray))


def items(cell: Any) -> list[str]:
    """The values of a cell of several: of a list, or of a text with one of `SEPARATORS`."""
    if is_list(cell):
        return [word(item) for item in cell]
    text = word(cell)
    mark = next((mark for mark in SEPARATORS if mark in text), None)
    return [part for item in text.split(mark) if (part := item.strip())] if mark else [text]


def as_number(value: Any) -> float | None:
    """A finite number, also as a text; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def average_vector(columns: Sequence[Column]) -> Float32[np.ndarray, " K"]:
    """The vector of conditions of the average image."""
    return np.array([number for column in columns for number in column.average], np.float32)
