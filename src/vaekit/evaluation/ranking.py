"""Images in the order of their likelihood: a table, a sheet of the least and the most likely, and maps."""

import math
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from vaekit.evaluation.likelihood import CountDraws, log_likelihoods, require_density
from vaekit.evaluation.maps import held_out_for_maps, map_batches, map_scale, maps_file, pixel_maps
from vaekit.latents.sampling import to_uint8
from vaekit.models.registry import Capability
from vaekit.plots import grids
from vaekit.plots.maps import MapScale, map_sheet
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import all_images
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.outputs import new_file
from vaekit.utils.files import atomic_file
from vaekit.utils.logging import console_logging, progress

if TYPE_CHECKING:
    import pandas as pd

ENDINGS, MAP_ENDINGS = (".csv", ".png"), ("_maps.png", "_maps.npz")
"""Of the files that are written: NAME.csv, NAME.png, and with maps NAME_maps.png and NAME_maps.npz."""
SHEET_IMAGES = 32
"""Images at each end of the sheet, and on the sheet of maps."""
RANK_SAMPLES = 5
"""Importance samples of each image, by default: an image then takes no longer than in training."""


def rank(
    model: LoadedModel, data: Any, samples: int, seed: int, maps: bool, out: Path | None, quiet: bool
) -> "pd.DataFrame":
    """Rank the images of a data set and write the table and its sheets: see `TrainedModel.rank`."""
    require_density(model.vae)
    further = ENDINGS[1:] + (MAP_ENDINGS if maps else ())
    out = new_file(model.run, out, ENDINGS[:1], data, also=further) if out is not None else None
    with console_logging(quiet):
        images, paths = all_images(model, data, quiet)
        held_out = held_out_for_maps(model, data, quiet) if maps else None
        with progress(len(images) * samples, "Ranking", "samples", quiet=quiet) as advance:
            table = ranking(model, images, paths, samples, seed, advance)
        scale = _add_maps(model, table, images, held_out, out, quiet) if held_out is not None else None
    if out is not None:
        with atomic_file(out) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
        grids.write(out.with_suffix(".png"), _sheet(table, images))
        if scale is not None:
            grids.write(_named(out, MAP_ENDINGS[0]), _map_sheet(model, table, images, scale))
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


def _add_maps(
    model: LoadedModel,
    table: "pd.DataFrame",
    images: ImageSet,
    held_out: ImageSet,
    out: Path | None,
    quiet: bool,
) -> MapScale:
    """Add `odd_pixels`, the share of the pixels of each map above the threshold, and write the maps.

    They are computed and written in batches.
    """
    ordered, shares = images[table.index.to_numpy()], []
    with ExitStack() as stack:
        advance = stack.enter_context(progress(len(held_out) + len(images), "Mapping", quiet=quiet))
        scale = map_scale(model, held_out, advance)
        write = None
        if out is not None:
            file = stack.enter_context(atomic_file(_named(out, MAP_ENDINGS[1])))
            shape = (len(images), *model.shape[1:])
            write = stack.enter_context(maps_file(file, shape, scale.threshold, table["file"].tolist()))
        for maps in map_batches(model, ordered, advance):
            shares.append((maps > scale.threshold).mean((1, 2)))
            if write is not None:
                write(maps)
    table["odd_pixels"] = np.concatenate(shares).round(6)
    table.attrs["threshold"] = scale.threshold
    return scale


def _named(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.stem}{ending}")


def _captions(part: "pd.DataFrame") -> list[str]:
    """The name and the nats of every image."""
    return [
        f"{PurePosixPath(name).with_suffix('')}\n{nats:,.{0 if abs(nats) >= 1e4 else 1}f}"
        for name, nats in zip(part["file"], part["log_likelihood"], strict=True)
    ]


def _columns(count: int) -> int:
    """As wide as the headings, with the fewest gaps."""
    return min(range(6, 11), key=lambda columns: -count % columns)


def _sheet(table: "pd.DataFrame", images: ImageSet) -> Image.Image:
    """The least likely images above the most likely ones, none of them twice, with names and nats."""
    least = min(SHEET_IMAGES, (len(table) + 1) // 2)
    most = min(SHEET_IMAGES, len(table) - least)
    sheets = []
    for part, end in ((table[:least], "least"), (table[::-1][:most], "most")):
        if part.empty:  # of one image in all
            continue
        title = f"The {len(part)} {end} likely of {len(table):,} images; log p(x) in nats"
        pixels = images[part.index.to_numpy()].pixels
        sheets.append(grids.grid(pixels, _columns(least), _captions(part), title))
    return grids.stack(sheets)


def _map_sheet(model: LoadedModel, table: "pd.DataFrame", images: ImageSet, scale: MapScale) -> Image.Image:
    """The least likely images, their reconstructions and their maps."""
    part = table[:SHEET_IMAGES]
    chosen = images[part.index.to_numpy()]
    [(x, y)] = chosen.batches(model.device, SHEET_IMAGES)
    with torch.no_grad():
        reconstructions = to_uint8(model.vae.reconstruct(x, y)).numpy()
    maps = pixel_maps(model.vae, x, y).float().cpu().numpy()
    title = f"The {len(part)} least likely of {len(table):,} images; log p(x) in nats"
    columns, captions = _columns(len(part)), _captions(part)
    return map_sheet(chosen.pixels, reconstructions, maps, scale, columns, captions, title)
