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
            raise UserError(
                f"Writing {path.name} needs pyarrow, which is not installed.",
                "Run `pip install 'vaekit[parquet]'`, or write a .csv file.",
            ) from None


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
    with atomic_file(path) as temporary:
        if suffix == ".parquet":
            # Parquet text must be UTF-8: other bytes are written as \xff
            columns = {
                name: [value.encode("utf-8", "backslashreplace").decode() for value in table[name]]
                for name in ("file", "label")
                if name in table
            }
            table.assign(**columns).to_parquet(temporary, engine="pyarrow", index=False)
            return
        names = {f"{n}s": np.array(table[n].tolist(), np.str_) for n in ("file", "label") if n in table}
        z = table.iloc[:, -math.prod(shape) :].to_numpy(np.float32).reshape(len(table), *shape)
        with temporary.open("wb") as file:
            np.savez(file, **{"latents": z, **names})  # type: ignore[arg-type]
