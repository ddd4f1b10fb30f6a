"""Where images are unlikely: minus the log-probability of every pixel, and the range of held-out images."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vaekit.errors import UserError, setting
from vaekit.models.terms import Images, Labels
from vaekit.models.vae import VAE
from vaekit.plots.maps import MapScale
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import held_out_images, is_training_pack
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.device import matmul_precision

Maps = Float[np.ndarray, "N H W"]

THRESHOLD_QUANTILE = 0.99
"""Share of the pixels of held-out images that are at or below the threshold."""
LOW_QUANTILE = 0.01
"""Share of the pixels of held-out images at or below which maps have the darkest colour."""
MAX_HELD_OUT = 512
"""Held-out images of which the quantiles are taken, at most."""
MAX_HELD_OUT_PIXELS = 1 << 24
"""Their pixels, at most, so that memory is bounded: larger images are fewer."""
WINDOW = 3
"""Width in pixels of the square over which a map is averaged."""


@matmul_precision()
@torch.no_grad()
def pixel_maps(model: VAE, x: Images, y: Labels | None) -> Float[Tensor, "B H W"]:
    """Minus log p(x | z) of every pixel at the mean of q(z | x), as `VAE.reconstruct`; in nats per pixel.

    A map is summed over channels, and averaged over the pixels of a window of 3x3 that are in the image:
    objects are larger than a pixel, but noise, and edges that are off by a pixel, are not. Where squares were
    painted on images, a quarter more of the painted pixels were above the 0.99 quantile than without the
    average; wider windows had no more.
    """
    log_p = model.pixel_log_prob(model.posterior_of(x, y).mean, model.prepare_target(x), y)
    maps = F.avg_pool2d(-log_p[:, None], WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
    return maps[:, 0]


def map_batches(model: LoadedModel, images: ImageSet, advance: Callable[[int], None]) -> Iterator[Maps]:
    """The maps of images, float32, one batch after another."""
    for x, y in images.batches(model.device):
        maps = pixel_maps(model.vae, x, y).float().cpu().numpy()
        yield maps
        advance(len(maps))


def held_out_for_maps(model: LoadedModel, data: Any, quiet: bool) -> ImageSet:
    """Held-out images of the training data, evenly spread; `data` may be these data in another place.

    Raises:
        UserError: the training images are not available.
    """
    try:
        held_out, _ = held_out_images(model, None, quiet)
    except UserError as error:
        if data is not None:
            held_out, _ = held_out_images(model, data, quiet)
        if data is None or not is_training_pack(model, held_out.pack):
            message = f"Maps need held-out training images for their threshold. {error.message}"
            hint = "Restore the training images, give them as the images to rank, or leave out"
            raise UserError(message, f"{hint} {setting('maps')}.") from error
    _, height, width = model.shape
    return held_out.spread(min(MAX_HELD_OUT, MAX_HELD_OUT_PIXELS // (height * width)))


def map_scale(model: LoadedModel, held_out: ImageSet, advance: Callable[[int], None]) -> MapScale:
    """Quantiles of the pixels of the maps of held-out images."""
    pixels = np.concatenate([maps.ravel() for maps in map_batches(model, held_out, advance)])
    low, threshold = np.quantile(pixels, [LOW_QUANTILE, THRESHOLD_QUANTILE]).astype(np.float32).tolist()
    return MapScale(low, threshold)


@contextmanager
def maps_file(
    path: Path, shape: tuple[int, int, int], threshold: float, files: Sequence[str]
) -> Iterator[Callable[[Maps], object]]:
    """Write a .npz of `maps` float32 [N, H, W], `threshold` and `files` [N]; yield a function that appends
    maps, so that they are never all in memory."""
    arrays = {"threshold": np.array(threshold, np.float32), "files": np.array(files, np.str_)}
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array)
        with archive.open("maps.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            yield lambda maps: file.write(maps.astype("<f4", copy=False).tobytes())
