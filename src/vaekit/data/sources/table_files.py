"""Tables of labels: where they are, and what is in them. A table is a .csv, .tsv, .json, .jsonl or .parquet
file, or a .txt file of words, with a row per image."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vaekit.data.decoding.formats import IMAGE_SUFFIXES, has_suffix
from vaekit.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables in folders of Hugging Face's datasets, in that of the images or in each of those of the splits."""
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


def table_in(folder: Path) -> str | None:
    """The name of a table that lies in a folder of images: metadata.csv and the like, or the only one; or
    of those in the folders of its splits."""
    if named := [name for name in METADATA if (folder / name).is_file()]:
        return named[0]
    tables = [path.name for path in folder.glob("*.*") if path.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        return tables[0] if len(tables) == 1 else None
    return next((name for name in METADATA if _below(folder, name)), None)


def _below(folder: Path, name: str) -> list[Path]:
    if name != Path(name).name:
        return []
    return next(filter(None, (sorted(folder.glob(f"{where}/{name}")) for where in FOLDERS)), [])


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
            return _read_json(path), True
        if suffix == ".parquet":
            return pd.read_parquet(path), True
    except ImportError:
        raise UserError(f"'{path}' needs pyarrow.", "Run `pip install 'vaekit[parquet]'`.") from None
    except (ValueError, OSError, KeyError) as error:
        text = " ".join(str(error).split())[:120]
        raise UserError(f"the table '{path}' cannot be read ({text}).", option="labels") from None
    raise UserError(f"'{path}' is no .csv, .json, .jsonl, .parquet or .txt file.", option="labels")


def _read_text(path: Path, stems: set[str]) -> "tuple[pd.DataFrame, bool]":
    """Rows of cells, separated by commas and the like, or else by spaces. The number of rows may stand above
    them, and the header may lack the name of the first column, as in CelebA's lists."""
    import pandas as pd

    with path.open(encoding="utf-8-sig") as file:
        lines = [line.strip() for line in islice(file, 3)]
    has_count = len(lines) == 3 and lines[0].isdecimal() and not lines[1].isdecimal()
    lines = lines[has_count:]
    separator = None if any(re.search(r"[,;\t|]", line) for line in lines) else r"\s+"
    options: dict[str, Any] = {"sep": separator, "engine": "python", "encoding": "utf-8-sig"}
    frame = pd.read_csv(path, skiprows=int(has_count), **options)
    if not isinstance(frame.index, pd.RangeIndex):  # the header is shorter than the rows
        return frame.rename_axis(FILE).reset_index(), True
    cells = [str(name) for name in frame.columns]
    files = [cell for cell in cells if _is_file(cell, stems)]
    if not files:
        return frame, True
    others = [cell for cell in cells if cell != files[0]]
    names = {files[0]: FILE, **{cell: f"column {cells.index(cell) + 1}" for cell in others}}
    if len(others) == 1:
        names[others[0]] = LABEL
    return pd.read_csv(
        path, skiprows=int(has_count), header=None, names=[names[cell] for cell in cells], **options
    ), False


def _is_file(cell: str, stems: set[str]) -> bool:
    """Whether the name of a column is that of an image, so that the first row is no header."""
    return has_suffix(cell, IMAGE_SUFFIXES) or (cell.isdecimal() and cell in stems)


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
