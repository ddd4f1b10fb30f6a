"""Labels of image files from a table: a .csv, .json, .jsonl or .parquet file with a row per image."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vaekit.data.sources.layout import NO_CLASS
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
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables in folders of Hugging Face's datasets."""
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
MAX_SHARE, FEW_LABELS = 0.5, 20
"""A column with more different labels than this share of the images, and than this number, is no class."""


def table_in(folder: Path) -> str | None:
    """The name of a table that lies in a folder of images: metadata.csv and the like, or the only one."""
    if named := [name for name in METADATA if (folder / name).is_file()]:
        return named[0]
    tables = [path.name for path in folder.glob("*.*") if path.suffix.lower() in TABLE_SUFFIXES]
    return tables[0] if len(tables) == 1 else None


def table_path(given: str, folder: Path) -> Path:
    """The path of a table: as it is given, or else inside the folder of the images."""
    path = Path(given).expanduser()
    return path if path.is_file() or path.is_absolute() else folder / path


def labels_of_files(table: Path, column: str | None, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The class of every file, and notes on what the table was taken for.

    Args:
        table: the table.
        column: the name of the column of labels; None to choose it.
        paths: paths of the files, relative to the folder of the images. A row belongs to a file by its path,
            the end of it, its name, its name without a suffix, or as a longer path that ends so.

    Raises:
        UserError: the table cannot be read, has no such column, or fits no file.
    """
    frame, files, matches = matched_table(table, paths)
    names = {str(name): str(name).lower() for name in frame.columns}
    label = _label_column(frame, names, files, column, table)
    missing = frame[label].isna().tolist()
    values = [None if missing[row] else text_of(value) for row, value in enumerate(frame[label].tolist())]
    classes = [NO_CLASS if row is None or values[row] is None else str(values[row]) for row in matches]
    without = sum(name == NO_CLASS for name in classes)
    notes = [f"Labels from column {label!r} of {table.name}, by the names in column {files!r}."]
    notes += _ambiguities(table, frame, files, label, matches)
    if without:
        images = "1 image has" if without == 1 else f"{without:,} images have"
        notes.append(f"{images} no label in {table.name}, and the class {NO_CLASS}.")
    distinct = len(set(classes) - {NO_CLASS})
    if distinct > max(MAX_SHARE * len(paths), FEW_LABELS):
        raise UserError(
            f"Column {label!r} of {table.name} has {distinct:,} different labels for {len(paths):,} images.",
            f"Choose a column of classes with {setting('label_column')}.",
        )
    return classes, notes


def _ambiguities(
    table: Path, frame: "pd.DataFrame", files: str, label: str, matches: Sequence[int | None]
) -> list[str]:
    """Rows that stand for several images, and files with several rows of different labels."""
    notes, used = [], Counter(row for row in matches if row is not None)
    if shared := [row for row, count in used.items() if count > 1]:
        images, example = sum(used[row] for row in shared), frame[files].iloc[shared[0]]
        notes.append(
            f"{images:,} images share a row of {table.name}, e.g. those named {example}. "
            "To tell them apart, name files with their folders in the table."
        )
    labels: dict[str, set[str]] = {}
    for file, value in zip(frame[files].tolist(), frame[label].tolist(), strict=True):
        labels.setdefault(text_of(file), set()).add(text_of(value))
    if several := [file for file, values in labels.items() if len(values) > 1]:
        count = "1 file has" if len(several) == 1 else f"{len(several):,} files have"
        notes.append(
            f"{count} rows with different labels in {table.name}, e.g. {several[0]}: the last one counts."
        )
    return notes


def matched_table(table: Path, paths: Sequence[str]) -> "tuple[pd.DataFrame, str, list[int | None]]":
    """A table, its column of files, and the row of each of `paths` in it; see `labels_of_files`.

    Raises:
        UserError: the table cannot be read, or fits no file.
    """
    frame = _read(table)
    frame.columns = [str(name) for name in frame.columns]
    return frame, *_file_column(frame, paths, table)


def text_of(value: Any) -> str:
    """A value as text: 3.0, as a column with gaps has it, is 3."""
    number = isinstance(value, float) and value.is_integer()
    return str(int(value)) if number else str(value)


def is_missing(value: Any) -> bool:
    """Whether a cell is empty; an empty list is not."""
    import pandas as pd

    if isinstance(value, str):
        return not value.strip()
    missing = pd.isna(value)
    return missing if isinstance(missing, bool) else False


def _read(path: Path) -> "pd.DataFrame":
    import pandas as pd

    if not path.is_file():
        raise UserError(f"the table '{path}' does not exist.", option="labels")
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv", ".txt"):
            return pd.read_csv(path, sep=None, engine="python", encoding="utf-8-sig", keep_default_na=True)
        if suffix in (".json", ".jsonl"):
            return _read_json(path)
        if suffix == ".parquet":
            return pd.read_parquet(path)
    except ImportError:
        raise UserError(f"'{path}' needs pyarrow.", "Run `pip install 'vaekit[parquet]'`.") from None
    except (ValueError, OSError, KeyError) as error:
        text = " ".join(str(error).split())[:120]
        raise UserError(f"the table '{path}' cannot be read ({text}).", option="labels") from None
    raise UserError(f"'{path}' is no .csv, .json, .jsonl or .parquet file.", option="labels")


def _read_json(path: Path) -> "pd.DataFrame":
    """A list of records, records line by line, or a dictionary: from files to labels, lists of labels or
    records; from columns to lists of cells; or from columns to dictionaries of cells, as pandas writes it."""
    import json

    import pandas as pd

    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".jsonl":
        return pd.DataFrame([json.loads(line) for line in text.splitlines() if line.strip()])
    record = json.loads(text)
    if not isinstance(record, dict):
        return pd.DataFrame(record)
    nested = [isinstance(value, dict) for value in record.values()]
    lists = any(isinstance(value, list) for value in record.values())
    if not any(nested) and (not lists or _are_files(record)):
        return pd.DataFrame({"file": list(record), "label": list(record.values())})
    if not all(nested):
        return pd.DataFrame(record)
    inner = {key for value in record.values() for key in value}
    if all(key.isdigit() for key in inner):  # the numbers of rows
        return pd.DataFrame(record)
    frame = pd.DataFrame.from_dict(record, orient="columns" if _are_files(inner) else "index")
    if FILE_COLUMNS[0] not in frame.columns:
        frame.insert(0, FILE_COLUMNS[0], frame.index)
    return frame


def _are_files(keys: Iterable[str]) -> bool:
    return all(PurePosixPath(key).suffix for key in keys)


def _file_column(frame: "pd.DataFrame", paths: Sequence[str], table: Path) -> tuple[str, list[int | None]]:
    """The column of files, and the row of each file in the table."""
    ranked = sorted(frame.columns, key=lambda name: _rank(name.lower(), FILE_COLUMNS))
    texts = {name: [text_of(value) for value in frame[name].tolist()] for name in ranked}
    suffixes = {suffix for path in paths if (suffix := PurePosixPath(path).suffix.lower())}
    named = [name for name in ranked if _name_files(texts[name], suffixes)]
    best: tuple[str, list[int | None]] = "", []
    most = 0
    for name in named or ranked:  # numbers are taken for names without a suffix only where nothing else is
        matches = _match(texts[name], paths)
        count = sum(row is not None for row in matches)
        if count > most:
            best, most = (name, matches), count
        if count == len(paths):
            break
    if not most:
        columns = ", ".join(frame.columns)
        example = f" Column {named[0]!r} names {texts[named[0]][0]}." if named else ""
        message = f"no column of {table.name} ({columns}) names files of this folder, such as {paths[0]}."
        raise UserError(message + example, option="labels")
    return best


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


def _label_column(
    frame: "pd.DataFrame", names: dict[str, str], files: str, column: str | None, table: Path
) -> str:
    if column is not None:
        if column not in names:
            raise UserError(f"{table.name} has no column {column!r}.", f"It has {', '.join(names)}.")
        return column
    others = [name for name in names if name != files]
    known = sorted(
        (name for name in others if names[name] in LABEL_COLUMNS),
        key=lambda name: LABEL_COLUMNS.index(names[name]),
    )
    if known or len(others) == 1:
        return (known or others)[0]
    hint = f"Choose the column of classes with {setting('label_column')}: {', '.join(others)}."
    raise UserError(f"It is not clear which column of {table.name} has the labels.", hint)


def _rank(name: str, preferred: Sequence[str]) -> int:
    return preferred.index(name) if name in preferred else len(preferred)
