"""What an `ImageLoader` needs of images, wherever they are stored."""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vaekit.data.sources.arrays import Pixels


@runtime_checkable
class ImageSource(Protocol):
    """Decoded images of one shape, read by their split and their row in it.

    `Pack` holds them in a file that is mapped into memory; anything with these five members can stand in its place.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty without classes."""

    def count(self, split: str) -> int:
        """Number of images in "train", "validation" or "test"."""

    def split_labels(self, split: str) -> NDArray[np.int64]:
        """The class numbers [count] of a split; -1 without classes."""

    def read(self, split: str, rows: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int64]]:
        """The images uint8 [n, H, W, C] of some rows of a split, 0 to count - 1, and their class numbers [n]."""
