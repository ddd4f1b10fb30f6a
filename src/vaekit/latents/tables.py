"""Tables of latents: CSV, Parquet, NumPy archives."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaekit.errors import UserError
from vaekit.latents.arrays import encode_means
from vaekit.latents.sampling import CHUNK
from vaekit.runs.inputs import all_images
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.outputs import new_file
from vaekit.utils.files import atomic_file
from vaekit.utils.logging import console_logging, progress

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".npz", ".parquet")


def latents(model: LoadedModel, data: Any, out: Path | None, quiet: bool) -> "pd.DataFrame":
    """Posterior means of a data set as a table, also written to `out`; see `TrainedModel.latents`."""
    import pandas as pd

    if out is not None:
        out = new_file(model.run, out, SUFFIXES, data)
        _require_writer(out)
    with console_logging(quiet):
        images, paths = all_images(model, data, quiet)
        with progress(len(images), "Encoding", quiet=quiet) as advance:
            z = encode_means(model.vae, images.batches(model.device, CHUNK), advance)
    table = pd.DataFrame(z.numpy(), columns=[f"z{latent}" for latent in range(1, z.shape[1] + 1)])
    table.insert(0, "file", paths)
    if images.class_names is not None:
        table.insert(1, "label", images.class_names)
    if out is not None:
        _write_latents(out, table, model.vae.latent_shape)
    return table


def _require_writer(path: Path) -> None:
    """Raise UserError if `path` is a Parquet file and pyarrow is not installed."""
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            hint = "Run `pip install 'vaekit[parquet]'`, or write a .csv file."
            raise UserError(f"Writing {path.name} needs pyarrow, which is not installed.", hint) from None


def _write_latents(path: Path, table: "pd.DataFrame", shape: tuple[int, ...]) -> None:
    """Write a table of latents in the format of the suffix of `path`.

    A .npz file has `files` [N], `labels` [N] if there are classes, and `latents` float32 [N, *shape].
    """
    with atomic_file(path) as temporary:
        if path.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False, lineterminator="\n")
        elif path.suffix.lower() == ".parquet":
            table.to_parquet(temporary, engine="pyarrow", index=False)
        else:
            names = [name for name in ("file", "label") if name in table]
            arrays = {f"{name}s": np.array(table[name].tolist(), np.str_) for name in names}
            z = table.iloc[:, -math.prod(shape) :].to_numpy(np.float32).reshape(len(table), *shape)
            with temporary.open("wb") as file:
                np.savez(file, **{"latents": z, **arrays})  # type: ignore[arg-type]
