"""Image files in the form of a pack, without one."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vaekit.config.data import DataConfig
from vaekit.data.decoding.files import UnusableError, open_regular
from vaekit.data.decoding.resize import to_bytes
from vaekit.data.decoding.worker import Open, read_image
from vaekit.data.packs.reading import Reading, decode_spec
from vaekit.data.sources.pixels import Pixels
from vaekit.errors import UserError


def load_images(
    paths: Sequence[str | Path],
    settings: DataConfig,
    shape: tuple[int, int, int],
    reading: Reading | None = None,
    opened: Open = open_regular,
) -> Pixels:
    """Read image files, which `opened` opens, to uint8 [N, H, W, C], like the training images of a model of
    `shape`."""
    channels, height, width = shape
    spec = decode_spec(settings, width, height, reading)
    spec = spec._replace(keep_alpha=channels == 4 and not settings.bands)
    images = np.empty((len(paths), height, width, channels), np.uint8)
    for row, path in enumerate(paths):
        with warnings.catch_warnings(action="ignore"):
            try:
                decoded, _ = read_image(opened, str(Path(path).expanduser()), spec)
                data = to_bytes(decoded.picture, channels)
            except (UnusableError, OSError) as error:
                hint = "Give a JPEG, PNG, WebP, BMP, TIFF or GIF image."
                raise UserError(f"'{path}' cannot be used ({error}).", hint) from None
        if len(data) != images[row].size:
            bands = len(data) // (height * width)
            raise UserError(
                f"'{path}' has {bands} bands, and this model takes {channels}.", "Give another image."
            )
        images[row] = np.frombuffer(data, np.uint8).reshape(height, width, channels)
    return images
