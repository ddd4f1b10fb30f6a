"""Labels and splits of image files from a table with a row per image."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vaekit.data.sources.layout import NO_CLASS, split_of
from vaekit.data.sources.table_files import Table, read_table
from vaekit.data.splits import SPLITS, TRAIN
from vaekit.errors import UserError, setting

if TYPE_CHECKING:
    import pandas as pd

FILE_COLUMNS = (
    "file",
    "file_name",
    "filename",
    "path",
    "file_path",
    "image",
    "image_path",
    "img",
    "name",
    "id",
)
"""Names by which the column of files is preferred, in any case; otherwise it is the one that fits best."""
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "species", "y")
"""Names of the column of labels, likewise; otherwise it is the only other one."""
SPLIT_COLUMNS = ("split", "set", "dataset", "subset", "partition", "fold", "phase", "usage")
"""Names of columns that say which split an image is in, if all of their values are names of splits."""
EXAMPLES = 4
"""Values that a note lists, at most."""
MAX_SHARE, FEW_LABELS = 0.5, 20
"""A column with more different labels than this share of the images, and than this number, is no class."""


@dataclass(frozen=True)
class MatchedTable:
    """A table, with the row of each image in it."""

    name: str
    frame: "pd.DataFrame"
    files: str
    """The column of files."""
    rows: list[int | None]
    """The row of each image."""
    notes: list[str]
    """What the table was taken for."""

    def cells(self, column: str) -> list[Any]:
        """The cell of each image in a column; None where it has no row."""
        cells = self.frame[column].tolist()
        return [None if row is None else cells[row] for row in self.rows]


def match_table(table: Table, paths: Sequence[str]) -> MatchedTable:
    """Find the row of each image in a table.

    Args:
        table: the table.
        paths: paths of the files, relative to the folder of the images. A row belongs to a file by its path,
            the end of it, its name, its name without a suffix, or as a longer path that ends so.

    Raises:
        UserError: the table cannot be read, or fits no file.
    """
    import pandas as pd

    notes, frames, offset = [], list["pd.DataFrame"](), 0
    files = ""
    rows: list[int | None] = [None] * len(paths)
    stems = {PurePosixPath(path).stem for path in paths}
    for folder, part in _with_images(table, paths).items():
        frame, has_header = read_table(part, stems)
        if not has_header:
            notes.append(f"{part.name} has no names of columns; they are {', '.join(frame.columns)} here.")
        start = len(folder) + 1 if folder else 0
        inside = [row for row, path in enumerate(paths) if not folder or path.startswith(f"{folder}/")]
        column, matches = _file_column(frame, [paths[row][start:] for row in inside], table.name)
        for row, match in zip(inside, matches, strict=True):
            rows[row] = None if match is None else match + offset
        files = files or column
        frames.append(frame.rename(columns={column: files}))
        offset += len(frame)
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    used = Counter(row for row in rows if row is not None)
    if shared := [row for row, count in used.items() if count > 1]:
        images, example = sum(used[row] for row in shared), frame[files].iloc[shared[0]]
        notes.append(
            f"{images:,} images share a row of {table.name}, e.g. those named {example}. "
            "To tell them apart, name files with their folders in the table."
        )
    return MatchedTable(table.name, frame, files, rows, notes)


def _with_images(table: Table, paths: Sequence[str]) -> dict[str, Path]:
    """The parts of a table in whose folders there are images; or one, for all images, if there is none."""
    inside = {
        folder: part
        for folder, part in table.parts.items()
        if not folder or any(path.startswith(f"{folder}/") for path in paths)
    }
    return inside or {"": next(iter(table.parts.values()))}


def labels_of_files(table: MatchedTable, column: str | None) -> tuple[list[str], list[str]]:
    """The class of every file, and notes on what the table was taken for.

    Args:
        table: the table.
        column: the name of the column of labels; None to choose it.

    Raises:
        UserError: the table has no such column, or one of too many labels.
    """
    names = {str(name): str(name).lower() for name in table.frame.columns}
    label = _label_column(names, table, column)
    if label is None:
        return [NO_CLASS] * len(table.rows), table.notes
    values = table.cells(label)
    if any(isinstance(value, (list, dict)) for value in values):
        hint = f"For several labels of an image: {setting('condition', label)}."
        raise UserError(f"Column {label!r} of {table.name} has lists or records.", hint)
    classes = [NO_CLASS if value is None or is_missing(value) else text_of(value) for value in values]
    without = sum(name == NO_CLASS for name in classes)
    notes = [f"Labels from column {label!r} of {table.name}, by the names in column {table.files!r}."]
    notes += [*table.notes, *contradictions(table, label)]
    if without:
        images = "1 image has" if without == 1 else f"{without:,} images have"
        notes.append(f"{images} no label in {table.name}, and the class {NO_CLASS}.")
    distinct = len(set(classes) - {NO_CLASS})
    if distinct > max(MAX_SHARE * len(classes), FEW_LABELS):
        labels = f"{distinct:,} different labels for {len(classes):,} images"
        hint = f"Choose a column of classes with {setting('label_column')}."
        raise UserError(f"Column {label!r} of {table.name} has {labels}.", hint)
    return classes, notes


def splits_of_files(table: MatchedTable, chosen: Sequence[str] = ()) -> tuple[list[int], list[str]]:
    """The split of every file by a column of splits, and a note; nothing if there is no such column.

    A file without a row or value is in the training split.

    Args:
        table: the table.
        chosen: columns that the user has chosen for something else.
    """
    for column in table.frame.columns:
        if not is_split_column(column) or column in chosen:
            continue
        texts = ["" if is_missing(value) else text_of(value) for value in table.frame[column]]
        values = [split_of(text) if text else TRAIN for text in texts]
        if len(set(values) - {None}) < 2 or None in values or TRAIN not in values:
            examples = ", ".join(sorted(set(filter(None, texts)))[:EXAMPLES])
            return [], [f"Column {column!r} of {table.name} ({examples}) is not taken for splits."]
        splits = [TRAIN if row is None else values[row] or TRAIN for row in table.rows]
        counts = ", ".join(
            f"{count:,} {name}" for number, name in enumerate(SPLITS) if (count := splits.count(number))
        )
        note = f"Splits by column {column!r} of {table.name}: {counts} images. "
        return splits, [f"{note}To choose them here: {setting('split_folders', 'never')}."]
    return [], []


def is_split_column(name: str) -> bool:
    """Whether a column is named like one of splits."""
    return re.sub("[^a-z]", "", name.lower()) in SPLIT_COLUMNS


def contradictions(table: MatchedTable, column: str) -> list[str]:
    """That files have several rows with different values in a column."""
    values: dict[str, set[str]] = {}
    for file, value in zip(table.frame[table.files].tolist(), table.frame[column].tolist(), strict=True):
        if is_missing(file) or is_missing(value):
            continue
        values.setdefault(text_of(file), set()).add(text_of(value))
    several = [file for file, different in values.items() if len(different) > 1]
    if not several:
        return []
    count = "1 file has" if len(several) == 1 else f"{len(several):,} files have"
    return [
        f"{count} rows with different values of {column!r} in {table.name}, e.g. {several[0]}: "
        "the last one counts."
    ]


def text_of(value: Any) -> str:
    """A value as text: 3.0, as a column with gaps has it, is 3."""
    text = str(value)
    return text.partition(".")[0] if re.fullmatch(r"-?\d+\.0+", text) else text


def is_missing(value: Any) -> bool:
    """Whether a cell is empty; an empty list is not."""
    import pandas as pd

    if isinstance(value, str):
        return not value.strip()
    missing = pd.isna(value)
    return missing if isinstance(missing, bool) else False


def _file_column(frame: "pd.DataFrame", paths: Sequence[str], table: str) -> tuple[str, list[int | None]]:
    """The column of files, and the row of each file in the table."""
    ranked = sorted(frame.columns, key=lambda name: _rank(name.lower(), FILE_COLUMNS))
    texts = {name: [text_of(value) for value in frame[name].tolist()] for name in ranked}
    suffixes = {suffix for path in paths if (suffix := PurePosixPath(path).suffix.lower())}
    named = [name for name in ranked if _name_files(texts[name], suffixes)]
    best: tuple[str, list[int | None]] = "", []
    most = 0
    others = [name for name in ranked if _may_name_files(name, texts[name])]
    for name in named or others:  # numbers are taken for names without a suffix only where nothing else is
        matches = _match(texts[name], paths)
        count = sum(row is not None for row in matches)
        if count > most:
            best, most = (name, matches), count
        if count == len(paths):
            break
    if not most:
        columns = ", ".join(frame.columns)
        example = f" Column {named[0]!r} names {texts[named[0]][0]}." if named else ""
        message = f"no column of {table} ({columns}) names files of this folder, such as {paths[0]}."
        raise UserError(message + example, option="labels")
    return best


def _may_name_files(name: str, values: Sequence[str]) -> bool:
    """Whether a column without suffixes may name files: labels do not, nor do numbers that are repeated."""
    repeated = len(set(values)) < len(values) and all(value.isdecimal() for value in values)
    return name.lower() not in LABEL_COLUMNS and not repeated


def _name_files(values: Sequence[str], suffixes: set[str]) -> bool:
    """Whether most values end like the files."""
    return 2 * sum(PurePosixPath(value).suffix.lower() in suffixes for value in values) > len(values)


def _match(values: Sequence[str], paths: Sequence[str]) -> list[int | None]:
    """The row of each path: by its path, the end of it, its name, its name without a suffix, or as the end of
    a longer path in one row."""
    rows = {value.replace("\\", "/").removeprefix("./"): row for row, value in enumerate(values)}
    longer: dict[str, int | None] = {}
    for value, row in rows.items():
        parts = value.split("/")
        for start in range(1, len(parts)):
            end = "/".join(parts[start:])
            longer[end] = None if end in longer else row
    matches = []
    for path in paths:
        parts = path.split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        stem = PurePosixPath(path).stem
        row_of_path = next((rows[name] for name in (*ends, stem) if name in rows), None)
        matches.append(longer.get(path) if row_of_path is None else row_of_path)
    return matches


def _label_column(names: dict[str, str], table: MatchedTable, column: str | None) -> str | None:
    """The column of labels; None if there are only files and splits."""
    if column is not None:
        if column not in names:
            raise UserError(f"{table.name} has no column {column!r}.", f"It has {', '.join(names)}.")
        return column
    others = [name for name in names if name != table.files]
    if not others:
        raise UserError(f"{table.name} has no column of labels, but only {table.files!r}.")
    others = [name for name in others if not is_split_column(name)]
    known = sorted(
        (name for name in others if names[name] in LABEL_COLUMNS),
        key=lambda name: LABEL_COLUMNS.index(names[name]),
    )
    if known or len(others) <= 1:
        return next(iter(known or others), None)
    hint = f"Choose the column of classes with {setting('label_column')}: {', '.join(others)}."
    raise UserError(f"It is not clear which column of {table.name} has the labels.", hint)


def _rank(name: str, preferred: Sequence[str]) -> int:
    return preferred.index(name) if name in preferred else len(preferred)
