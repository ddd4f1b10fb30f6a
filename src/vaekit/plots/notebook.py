"""Displays of images and models in notebooks."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from vaekit.plots import grids

NOTEBOOK_IMAGES = 64
"""Images of an array that a notebook shows, at most."""


class ImageArray(np.ndarray[Any, Any]):
    """Images, uint8 [N, H, W, C], which a notebook shows as a grid.

    `images.view(ImageArray)` makes one without copying. Slices and results of arithmetic are plain arrays.
    """

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self)[index]

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)

    def _repr_png_(self) -> bytes | None:
        """The grid; None where these are not images, so that text is shown."""
        if self.dtype != np.uint8 or self.ndim != 4 or not self.size or self.shape[3] not in (1, 3, 4):
            return None
        title = f"The first {NOTEBOOK_IMAGES} of {len(self):,} images" if len(self) > NOTEBOOK_IMAGES else ""
        return grids.png(grids.grid(self[:NOTEBOOK_IMAGES], title=title))


def html_card(title: str, facts: Mapping[str, str], sheet: Image.Image) -> str:
    """A title, a table of facts, and a picture below, as HTML."""
    rows = "".join(
        f"<tr><td style='text-align: left'>{html.escape(name)}</td>"
        f"<td style='text-align: left'>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    image = f"<img alt='New images' src='{grids.png_source(grids.png(sheet))}' style='max-width: 100%'>"
    return f"<div><strong>{html.escape(title)}</strong><table>{rows}</table>{image}</div>"
