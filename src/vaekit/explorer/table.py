"""Columns of a user's table, to colour the map by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.data.sources.table_files import find_table
from vaekit.data.sources.tables import is_missing, match_table, text_of
from vaekit.explorer.image_map import Column
from vaekit.utils.files import natural_sort_key

MAX_CATEGORIES = 200
"""Different texts of a column, at most: one with more, such as names, has no colours."""


def table_columns(file: Path, paths: Sequence[str]) -> list[Column]:
    """The columns of a table that has a row per image, as `--labels` takes them: numbers, or classes.

    Args:
        file: .csv, .tsv, .json, .jsonl or .parquet.
        paths: paths of the images, relative to their folder.

    Raises:
        UserError: the table cannot be read, or fits no image.
    """
    table = match_table(find_table(str(file), Path()), paths)
    others = [name for name in table.frame.columns if name != table.files]
    columns = [_column(name, table.cells(name), f"column of {table.name}") for name in others]
    return [column for column in columns if column is not None]


def _column(name: str, cells: Sequence[Any], about: str) -> Column | None:
    cells = [None if cell is None or is_missing(cell) else cell for cell in cells]
    try:
        numbers = [np.nan if cell is None else float(cell) for cell in cells]
        return Column(name, np.array(numbers, np.float32), (), about)
    except (TypeError, ValueError):
        texts = [None if cell is None else text_of(cell) for cell in cells]
    categories = sorted({text for text in texts if text is not None}, key=natural_sort_key)
    if len(categories) > MAX_CATEGORIES:
        return None
    index = {text: number for number, text in enumerate(categories)}
    values = [-1 if text is None else index[text] for text in texts]
    return Column(name, np.array(values, np.float32), tuple(categories), about)
