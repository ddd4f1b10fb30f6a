"""Synthetic photographs: images that take as long to decode, resize and learn as real ones."""

import numpy as np
from PIL import Image


def photo(seed: int, width: int = 800, height: int = 600) -> Image.Image:
    """An RGB image with the spectrum of a photograph (amplitude falls with frequency), edges and noise."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128.0)
    for cells, amplitude in ((4, 55), (12, 30), (40, 14), (130, 6)):
        colour = (
            rng.normal(size=(cells * 3 // 4, cells, 1)) * amplitude
            + rng.normal(size=(cells * 3 // 4, cells, 3)) * amplitude / 3
        )
        for channel in range(3):
            field = Image.fromarray(colour[..., channel].astype(np.float32))
            picture[..., channel] += np.asarray(field.resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.mgrid[:height, :width]
    for _ in range(12):  # shapes with edges
        cx, cy, rx, ry = rng.uniform((0, 0, 0.025, 0.03), (1, 1, 0.19, 0.25)) * (width, height, width, height)
        picture[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] += rng.normal(size=3) * 25
    picture += rng.normal(size=(height, width, 1)) * 2
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))
