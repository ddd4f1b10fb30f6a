"""Images in the order of their likelihood: a table, and a sheet of the least and the most likely."""

import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaekit.evaluation.likelihood import CountDraws, log_likelihoods, require_density
from vaekit.models.registry import Capability
from vaekit.plots import grids
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import all_images
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.outputs import new_file
from vaekit.utils.files import atomic_file
from vaekit.utils.logging import console_logging, progress

if TYPE_CHECKING:
    import pandas as pd

SHEET_IMAGES = 32
"""Images at each end of the sheet."""
RANK_SAMPLES = 5
"""Importance samples of each image, by default: an image then takes no longer than in training."""


def rank(
    model: LoadedModel, data: Any, samples: int, seed: int, out: Path | None, quiet: bool
) -> "pd.DataFrame":
    """Rank the images of a data set and write the table and its sheet: see `TrainedModel.rank`."""
    require_density(model.vae)
    out = new_file(model.run, out, (".csv",), data, also=".png") if out is not None else None
    with console_logging(quiet):
        images, paths = all_images(model, data, quiet)
        with progress(len(images) * samples, "Ranking", "samples", quiet=quiet) as advance:
            table = ranking(model, images, paths, samples, seed, advance)
    if out is not None:
        with atomic_file(out) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
        grids.write(out.with_suffix(".png"), _sheet(table, images))
    return table.reset_index(drop=True)


def ranking(
    model: LoadedModel, images: ImageSet, files: list[str], samples: int, seed: int, advance: CountDraws
) -> "pd.DataFrame":
    """One row per image, the least likely first; its index is the image's place in `images`.

    Columns are rank (from 1), file, label (with classes), log_likelihood in nats and, where the likelihood is
    normalized over 256 levels, bits_per_dimension; `attrs["measure"]` is the kind of the likelihood.
    """
    import pandas as pd

    log_px, measure = log_likelihoods(model.vae, images.batches(model.device), samples, seed, advance)
    nats = log_px.numpy()
    table = pd.DataFrame({"file": files})
    if (labels := images.class_names) is not None:
        table["label"] = labels
    table["log_likelihood"] = nats.round(4)
    if Capability.NORMALIZED in model.vae.likelihood.provides:
        table["bits_per_dimension"] = (-nats / math.log(2) / math.prod(model.shape)).round(6)
    table = table.iloc[np.argsort(nats, kind="stable")]
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    table.attrs["measure"] = measure
    return table


def _sheet(table: "pd.DataFrame", images: ImageSet) -> Image.Image:
    """The least likely images above the most likely ones, none of them twice, with names and nats."""
    least = min(SHEET_IMAGES, (len(table) + 1) // 2)
    most = min(SHEET_IMAGES, len(table) - least)
    # As wide as the headings, with the fewest gaps
    columns = min(range(6, 11), key=lambda count: -least % count)
    sheets = []
    for part, end in ((table[:least], "least"), (table[::-1][:most], "most")):
        if part.empty:  # of one image in all
            continue
        captions = [
            f"{PurePosixPath(name).with_suffix('')}\n{nats:,.{0 if abs(nats) >= 1e4 else 1}f}"
            for name, nats in zip(part["file"], part["log_likelihood"], strict=True)
        ]
        title = f"The {len(part)} {end} likely of {len(table):,} images; log p(x) in nats"
        sheets.append(grids.grid(images[part.index.to_numpy()].pixels, columns, captions, title))
    return grids.stack(sheets)
