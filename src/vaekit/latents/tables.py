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
    """Raise UserError if `path` is a Parquet file and pyarrow is not installed."""
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            hint = "Run `pip install 'vaekit[parquet]'`, or write a .csv file."
            raise UserError(f"Writing {path.name} needs pyarrow, which is not installed.", hint) from None


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV; file names that are not UTF-8 keep their bytes."""
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8", errors="surrogateescape", lineterminator="\n")


def write_latents(path: Path, table: "pd.DataFrame", shape: tuple[int, ...]) -> None:
    """Write a table of latents in the format of the suffix of `path`.

    A .npz file has `files` [N], `labels` [N] if there are classes, and `latents` float32 [N, *shape].
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        write_csv(path, table)
        return
    names = [name for name in ("file", "label") if name in table]
    with atomic_file(path) as temporary:
        if suffix == ".parquet":
            escaped = table.copy()
            for name in names:  # Parquet text must be UTF-8: other bytes are written as \xff
                escaped[name] = [text.encode("utf-8", "backslashreplace").decode() for text in table[name]]
            escaped.to_parquet(temporary, engine="pyarrow", index=False)
            return
        arrays = {f"{name}s": np.array(table[name].tolist(), np.str_) for name in names}
        z = table.iloc[:, -math.prod(shape) :].to_numpy(np.float32).reshape(len(table), *shape)
        with temporary.open("wb") as file:
            np.savez(file, **{"latents": z, **arrays})  # type: ignore[arg-type]
