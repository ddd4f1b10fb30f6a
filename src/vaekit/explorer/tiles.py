"""Thumbnails for a map, in square tiles of several levels."""

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from vaekit.data.sources.pixels import Pixels
from vaekit.errors import UserError

DEEPEST = 12
"""Level of the smallest tiles: there are 2^level tiles in each direction."""
PER_TILE = 48
"""Thumbnails of a tile, at most."""
THUMBNAIL = 32
"""The longer edge of a thumbnail, in pixels, at most."""


class Tiles:
    """The images of a map by the tile they lie in.

    Images are sorted by the Z-order curve of their coordinates (Morton 1966), on which every tile of every
    level is one range. Which images of a tile are shown does not depend on the level: an image that is shown
    in a tile is shown in all smaller ones.

    Args:
        coordinates: of N images.
        images: their pixels.
    """

    def __init__(self, coordinates: Float[np.ndarray, "N 2"], images: Pixels) -> None:
        self.coordinates, self.images = coordinates, images
        low, high = coordinates.min(0), coordinates.max(0)
        self.low = low
        self.edge = float(max((high - low).max(), 1e-9)) * (1 + 1e-6)
        """Length of the edge of the one tile of level 0, whose corner is `low`."""
        cells = ((coordinates - low) / self.edge * (1 << DEEPEST)).astype(np.uint32)
        codes = (_spread_bits(cells[:, 0]) | (_spread_bits(cells[:, 1]) << np.uint64(1))).astype(np.uint64)
        self._order = np.argsort(codes, kind="stable")
        self._codes = codes[self._order]
        self._priority = np.random.default_rng(0).permutation(len(codes))[self._order]

    def rows(self, level: int, x: int, y: int) -> NDArray[np.int64]:
        """The images that are shown in a tile, at most PER_TILE.

        Raises:
            UserError: there is no such tile.
        """
        if not (0 <= level <= DEEPEST and 0 <= x < 1 << level and 0 <= y < 1 << level):
            raise UserError(f"There is no tile {x}, {y} of level {level}.")
        corner = np.array([x, y], np.uint32)
        code = int(_spread_bits(corner[:1])[0] | (_spread_bits(corner[1:])[0] << np.uint64(1)))
        bits = np.uint64(2 * (DEEPEST - level))
        first, last = (np.uint64(code + i) << bits for i in (0, 1))
        start, stop = np.searchsorted(self._codes, [first, last])
        rows = np.arange(start, stop)
        if len(rows) > PER_TILE:
            rows = rows[np.argpartition(self._priority[rows], PER_TILE)[:PER_TILE]]
        chosen: NDArray[np.int64] = self._order[rows]
        return chosen

    def thumbnails(self, rows: NDArray[np.int64]) -> UInt8[np.ndarray, "n h w C"]:
        """Small pictures of images: means of squares of pixels."""
        _, height, width, channels = self.images.shape
        factor = max(1, max(height, width) // THUMBNAIL)
        h, w = height // factor, width // factor
        if not len(rows):
            return np.zeros((0, h, w, channels), np.uint8)
        pixels = np.stack([np.asarray(self.images[row]) for row in rows])[:, : h * factor, : w * factor]
        squares = pixels.reshape(len(rows), h, factor, w, factor, channels)
        small: UInt8[np.ndarray, "n h w C"] = squares.mean((2, 4)).round().astype(np.uint8)
        return small


def _spread_bits(values: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Numbers below 2^16 with a zero between each two bits."""
    bits = values.astype(np.uint64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
    return bits
