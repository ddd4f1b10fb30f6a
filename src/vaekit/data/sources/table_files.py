"""Tables of labels: where they are, and what is in them. A table is a .csv, .tsv, .json, .jsonl or .parquet
file, or a .txt file of words, with a row per image."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vaekit.data.decoding.formats import IMAGE_SUFFIXES, has_suffix
from vaekit.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables in folders of Hugging Face's datasets, in that of the images or in each of those of the splits."""
FILE_NAME = "file_name"
"""Their column of paths."""
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
FOLDERS = ("*", "*/*")
"""Where tables of one name are looked for inside a folder that has none itself."""
FILE, LABEL = "file", "label"
"""Names of columns that have none."""


@dataclass(frozen=True)
class Table:
    """A table, or several of the same name in folders, whose files are named from there."""

    name: str
    parts: dict[str, Path]
    """The folder that names start from, "" for that of the images, and the table."""


def find_table(given: str, folder: Path) -> Table:
    """A table: as it is given, or inside the folder of the images, or in several folders there."""
    path = Path(given).expanduser()
    if not (path.is_file() or path.is_absolute()):
        below = [] if (folder / path).is_file() else _below(folder, given)
        if below:
            return Table(path.name, {part.parent.relative_to(folder).as_posix(): part for part in below})
        path = folder / path
    return Table(path.name, {"": path})


def tables_in(folder: Path) -> list[str]:
    """The names of the tables that lie in a folder of images: metadata.csv and the like first; or else of
    those in folders below it."""
    for where in ("", *(f"{where}/" for where in FOLDERS)):
        names = {path.name for path in folder.glob(f"{where}*.*") if is_table(path.name)}
        if names:
            return sorted(names, key=lambda name: (name not in METADATA, name))
    return []


def images_not_named(folder: Path, paths: Sequence[str]) -> dict[str, str]:
    """The images that metadata.csv or the like leaves out, as Hugging Face's datasets do, with the reason:
    those in its folder of which no row has the path in its column `file_name`. A table of other files, or
    without such a column, leaves out none.

    Args:
        folder: that of the images.
        paths: paths of image files relative to it.
    """
    left_out: dict[str, str] = {}
    tables = [(name, part) for name in METADATA for part in find_table(name, folder).parts.items()]
    for name, (where, table) in tables:
        start = f"{where}/" if where else ""
        named = {start + file for file in _file_names(table)}
        inside = [path for path in paths if path.startswith(start)]
        unnamed = [path for path in inside if path not in named]
        if len(unnamed) < len(inside):
            left_out |= dict.fromkeys(unnamed, f"not named in {start}{name}")
    return left_out


def _file_names(table: Path) -> list[str]:
    """The column `file_name` of a table; nothing if there is none, or it cannot be read."""
    try:
        frame, _ = read_table(table, set())
    except UserError:
        return []
    cells = frame[FILE_NAME].tolist() if FILE_NAME in frame.columns else []
    return [str(cell).replace("\\", "/").removeprefix("./") for cell in cells]


def is_table(name: str) -> bool:
    """Whether a file may be a table of labels, by its suffix."""
    return name.lower().endswith(TABLE_SUFFIXES)


def _below(folder: Path, name: str) -> list[Path]:
    if name != Path(name).name:
        return []
    return sorted(path for where in FOLDERS for path in folder.glob(f"{where}/{name}"))


def read_table(path: Path, stems: set[str]) -> "tuple[pd.DataFrame, bool]":
    """The cells of a table, and whether it names its columns.

    Args:
        path: the file.
        stems: names of files without a suffix, by which a first row that is no header is recognized.

    Raises:
        UserError: it cannot be read.
    """
    import pandas as pd

    if not path.is_file():
        raise UserError(f"the table '{path}' does not exist.", option="labels")
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv", ".txt"):
            return _read_text(path, stems)
        if suffix in (".json", ".jsonl"):
            return _named(_read_json(path)), True
        if suffix == ".parquet":
            return _named(pd.read_parquet(path)), True
    except ImportError:
        raise UserError(f"'{path}' needs pyarrow.", "Run `pip install 'vaekit[parquet]'`.") from None
    except (ValueError, OSError, KeyError) as error:
        text = " ".join(str(error).split())[:120]
        raise UserError(f"the table '{path}' cannot be read ({text}).", option="labels") from None
    raise UserError(f"'{path}' is no .csv, .json, .jsonl, .parquet or .txt file.", option="labels")


def _named(frame: "pd.DataFrame") -> "pd.DataFrame":
    return frame.rename(columns=str)


def _read_text(path: Path, stems: set[str]) -> "tuple[pd.DataFrame, bool]":
    """Rows of cells, separated by commas and the like, or else by spaces; all of them texts. The number of
    rows may stand above them, and the header may lack the name of the first column, as in CelebA's lists."""
    import pandas as pd

    text = path.read_text(encoding="utf-8-sig")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 2 and lines[0].strip().isdecimal() and not lines[1].strip().isdecimal():
        text, lines = text[text.index("\n") + 1 :], lines[1:]
    if not lines:
        raise ValueError("it is empty")
    separator = max(",;\t|", key=lines[0].count)
    if separator in lines[0]:
        options: Any = {"delimiter": separator, "skipinitialspace": True}
        rows = [row for row in csv.reader(io.StringIO(text), **options) if row]
    else:
        rows = _split_by_spaces(lines, stems)
    cells = [[cell.strip() for cell in row] for row in rows]
    names = cells[0]
    if named := [place for place, cell in enumerate(names) if _is_file(cell, stems)]:
        others = [place for place in range(len(names)) if place != named[0]]
        names = [f"column {place + 1}" for place in range(len(names))]
        names[named[0]] = FILE
        if len(others) == 1:
            names[others[0]] = LABEL
    else:
        cells = cells[1:]
        if cells and max(map(len, cells)) == len(names) + 1:
            names = [FILE, *names]
    width = len(names)
    if wrong := [number for number, row in enumerate(cells) if len(row) > width and any(row[width:])]:
        raise ValueError(f"row {wrong[0] + 1} has {len(cells[wrong[0]])} cells instead of {width}")
    table = [[cell or None for cell in row[:width]] + [None] * (width - len(row)) for row in cells]
    return pd.DataFrame(table, columns=names, dtype=object), not named


def _split_by_spaces(lines: Sequence[str], stems: set[str]) -> list[list[str]]:
    """Cells between spaces: as many in every row as in the first, the last of which may have spaces; or one
    more, if the first is a header without a name for files."""
    first, second = (line.split() for line in (lines[0], lines[min(1, len(lines) - 1)]))
    lacks_one = not any(_is_file(cell, stems) for cell in first) and _is_file(second[0], stems)
    count = len(first) + (lacks_one and len(second) == len(first) + 1)
    return [line.split(None, count - 1) for line in lines]


def _is_file(cell: str, stems: set[str]) -> bool:
    """Whether the name of a column is that of an image, so that the first row is no header."""
    return has_suffix(cell, IMAGE_SUFFIXES) or (cell in stems and any(map(str.isdigit, cell)))


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
        return pd.DataFrame({FILE: list(record), LABEL: list(record.values())})
    if not all(nested):
        return pd.DataFrame(record)
    inner = {key for value in record.values() for key in value}
    if all(key.isdigit() for key in inner):  # the numbers of rows
        return pd.DataFrame(record)
    frame = pd.DataFrame.from_dict(record, orient="columns" if _are_files(inner) else "index")
    if FILE not in frame.columns:
        frame.insert(0, FILE, frame.index)
    return frame


def _are_files(keys: Iterable[str]) -> bool:
    return all(PurePosixPath(key).suffix for key in keys)
