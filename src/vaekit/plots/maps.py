"""Images, their reconstructions, and maps of both in one scale of colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from vaekit.plots import grids
from vaekit.plots.fonts import font_for

COLORS = "magma"
"""Matplotlib's colour map: perceptually uniform, and readable with any colour vision."""
OUTLINE = (0, 255, 255)
"""The colour of the outline of what is above the threshold, which the colour map does not have."""
BAR = (336, 14)
"""Width and height of the colour bar."""


@dataclass(frozen=True)
class MapScale:
    """The range of colours of maps, in the unit of their values."""

    low: float
    """Values that are darkest."""
    threshold: float
    """The middle of the range: values above it are outlined."""

    @property
    def high(self) -> float:
        """Values that are brightest."""
        return 2 * self.threshold - self.low

    def colors(self, values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
        """RGB; values outside the range have the colours of its ends."""
        from matplotlib import colormaps

        span = max(self.high - self.low, 1e-6)
        shares = np.clip((values - self.low) / span, 0, 1)
        return (colormaps[COLORS](shares)[..., :3] * 255).round().astype(np.uint8)


def map_sheet(
    images: UInt8[np.ndarray, "N H W C"],
    reconstructions: UInt8[np.ndarray, "N H W C"],
    maps: Float[np.ndarray, "N H W"],
    scale: MapScale,
    columns: int,
    labels: Sequence[str],
    title: str,
) -> Image.Image:
    """Each image above its reconstruction and its map, in nats per pixel, and the colour bar of all maps.

    Regions above the threshold are outlined.
    """
    tiles = grids.grid(images, columns, labels, below=[reconstructions, map_tiles(maps, scale)])
    bar = _bar(scale, f"{title}\nTop: image. Middle: reconstruction. Bottom: -log p(x | z) of each pixel.")
    return grids.stack([bar, tiles])


def map_tiles(maps: Float[np.ndarray, "N H W"], scale: MapScale) -> UInt8[np.ndarray, "N h w 3"]:
    """Maps in colours, magnified as images are, with an outline of one pixel around what is above."""
    factor = grids.zoom(*maps.shape[1:])
    large = maps.repeat(factor, 1).repeat(factor, 2)
    tiles = scale.colors(large)
    tiles[_edges(large > scale.threshold)] = OUTLINE
    return tiles


def _edges(above: Bool[np.ndarray, "N h w"]) -> Bool[np.ndarray, "N h w"]:
    """Pixels of regions, with a pixel outside of them, or the end of the image, next to them."""
    padded = np.pad(above, ((0, 0), (1, 1), (1, 1)))
    inner: NDArray[np.bool_] = (
        padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    )
    edges: NDArray[np.bool_] = above & ~inner
    return edges


def _bar(scale: MapScale, title: str) -> Image.Image:
    """The title, and below it the colours with their values, and the threshold at a line of the outline."""
    width, height = BAR
    note = "nats per pixel; outlined: above the threshold"
    font = font_for((), grids.LABEL_SIZE)
    right = width + 3 * grids.GAP
    sheet, pen, top = grids.blank(
        (right + round(font.getlength(note)), height + 4 + grids.LINE_HEIGHT), title
    )
    left = grids.MARGIN
    ramp = scale.colors(np.linspace(scale.low, scale.high, width, dtype=np.float32)[None])
    sheet.paste(Image.fromarray(ramp.repeat(height, 0)), (left, top))
    middle = left + width // 2
    pen.rectangle((middle - 1, top - 3, middle, top + height + 2), fill=OUTLINE)
    texts = (f"{scale.low:.3g} or less", f"threshold {scale.threshold:.3g}", f"{scale.high:.3g} or more")
    for text, share, anchor in zip(texts, (0, 0.5, 1), ("la", "ma", "ra"), strict=True):
        pen.text((left + share * width, top + height + 4), text, grids.INK, font, anchor=anchor)
    pen.text((left + right, top + height / 2), note, grids.INK, font, anchor="lm")
    return sheet
