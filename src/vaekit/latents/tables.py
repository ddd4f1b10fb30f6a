"""Tables of latents as files: CSV, Parquet or NumPy archives, without pickle."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaekit.errors import UserError
from vaekit.utils.files import atomic_file

if TYPE_CHECKING:
    import pandas as pd


SUFFIXES = (".csv", ".npz", ".parquet")


def require_writer(path: Path) -> None:
    """Refuse before computing what could not be written.

    Raises:
        UserError: a Parquet file is wanted and pyarrow is not installed.
    """
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(
                f"Writing {path.name} needs pyarrow, which is not installed.",
                "Run `pip install 'vaekit[parquet]'`, or write a .csv file.",
            ) from None


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """A row of names, then a line each; names of files that are no text keep their bytes."""
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8", errors="surrogateescape", lineterminator="\n")


def write_latents(path: Path, table: "pd.DataFrame", shape: tuple[int, ...]) -> None:
    """The latents of images, by the suffix of `path`.

    An .npz holds `files` [N] and, with classes, `labels` [N], both as text of fixed width, and `latents`,
    float32 [N, D], or [N, C, h, w] where `shape`, that of the latents, is an image's.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        write_csv(path, table)
        return
    with atomic_file(path) as temporary:
        if suffix == ".parquet":
            # Parquet knows text alone: a byte of a name that is none is written as \xff
            words = [name for name in ("file", "label") if name in table]
            text = {
                name: [one.encode("utf-8", "backslashreplace").decode() for one in table[name]]
                for name in words
            }
            table.assign(**text).to_parquet(temporary, engine="pyarrow", index=False)
            return
        columns = {"files": table["file"]} | ({"labels": table["label"]} if "label" in table else {})
        names = {name: np.array(column.tolist(), np.str_) for name, column in columns.items()}
        z = table.iloc[:, -math.prod(shape) :].to_numpy(np.float32).reshape(len(table), *shape)
        with temporary.open("wb") as file:
            np.savez(file, **{"latents": z, **names})  # type: ignore[arg-type]
