"""Images in the order of their likelihood: a table, and a sheet of the least and the most likely."""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vaekit.evaluation.likelihood import log_likelihoods, require_density
from vaekit.latents import tables
from vaekit.models.registry import Capability
from vaekit.plots import grids
from vaekit.runs.inputs import all_images
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.outputs import new_file
from vaekit.utils.logging import console_logging, progress

if TYPE_CHECKING:
    import pandas as pd


SHEET_IMAGES = 32
"""Images at each end of the sheet."""


def rank(
    model: LoadedModel, data: Any, samples: int, seed: int, out: Path | None, quiet: bool
) -> "pd.DataFrame":
    """Rank the images of a data set and write the table and its sheet: see `TrainedModel.rank`."""
    require_density(model.vae)
    out = new_file(model.run, out, (".csv",), data, also=".png") if out is not None else None
    with console_logging(quiet):
        images, paths = all_images(model, data, quiet)
        with progress(len(images) * samples, "Ranking", "samples", quiet=quiet) as advance:
            nats, measure = log_likelihoods(model.vae, images.batches(model.device), samples, seed, advance)
    pixels = math.prod(model.shape) if Capability.NORMALIZED in model.vae.likelihood.provides else None
    table = ranking(paths, images.class_names, nats, pixels, measure)
    if out is not None:
        tables.write_csv(out, table)
        odd, likely = sheet_counts(len(table))
        order = table.index.to_numpy()
        ends = (images[rows].pixels for rows in (order[:odd], order[::-1][:likely]))
        grids.write(out.with_suffix(".png"), sheet(table, *ends))
    return table.reset_index(drop=True)


def ranking(
    files: Sequence[str],
    labels: Sequence[str] | None,
    log_likelihood: Float[Tensor, " N"],
    pixels: int | None,
    measure: str,
) -> "pd.DataFrame":
    """One row per image, the least likely first.

    Args:
        files: paths of the images.
        labels: names of their classes, if they have any.
        log_likelihood: in nats.
        pixels: dimensions of an image, for bits/dim; None where the likelihood has none.
        measure: what p(x | z) is, for `attrs["measure"]`.

    Returns:
        Columns rank (from 1), file, label (with `labels`), log_likelihood and bits_per_dimension (with
        `pixels`).
    """
    import pandas as pd

    nats = log_likelihood.double().numpy()
    columns = {"file": list(files)} | ({"label": list(labels)} if labels is not None else {})
    table = pd.DataFrame(columns | {"log_likelihood": nats.round(4)})
    if pixels is not None:
        table["bits_per_dimension"] = (-nats / math.log(2) / pixels).round(6)
    table = table.iloc[np.argsort(nats, kind="stable")]  # its index still says which image a row is
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    table.attrs["measure"] = measure
    return table


def sheet(
    table: "pd.DataFrame", odd: UInt8[np.ndarray, "N H W C"], likely: UInt8[np.ndarray, "M H W C"]
) -> Image.Image:
    """The least likely images above the most likely ones, each with its file name and log-likelihood in
    nats."""

    def captions(part: "pd.DataFrame") -> list[str]:
        rows = zip(part["file"], part["log_likelihood"], strict=True)
        return [
            f"{PurePosixPath(name).with_suffix('')}\n{nats:,.{0 if abs(nats) >= 1e4 else 1}f}"
            for name, nats in rows
        ]

    columns = min(
        range(6, 11), key=lambda count: -len(odd) % count
    )  # as wide as the headings, with the fewest gaps
    ends = [
        (odd, captions(table[: len(odd)]), "least"),
        (likely, captions(table[::-1][: len(likely)]), "most"),
    ]
    sheets = []
    for images, names, end in ends:
        title = f"The {len(images)} {end} likely of {len(table):,} images; log p(x) in nats"
        sheets.append(grids.grid(images, columns, names, title))
    return grids.stack(sheets)


def sheet_counts(count: int) -> tuple[int, int]:
    """How many of `count` images the sheet shows as least and as most likely, none of them twice."""
    odd = min(SHEET_IMAGES, (count + 1) // 2)
    return odd, min(SHEET_IMAGES, count - odd)
