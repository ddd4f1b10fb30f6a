"""The interface between stored images and `ImageLoader`."""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vaekit.data.sources.arrays import Pixels


@runtime_checkable  # for type checks at run time
class ImageSource(Protocol):
    """Decoded images of one shape, read by split and row, such as a `Pack`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty without classes."""

    def count(self, split: str) -> int:
        """Number of images in "train", "validation" or "test"."""

    def split_labels(self, split: str) -> NDArray[np.int64]:
        """Class numbers int64 [count] of all images of a split; -1 without classes."""

    def read(self, split: str, rows: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int64]]:
        """Images uint8 [n, H, W, C] and class numbers int64 [n] of some rows (0 to count - 1) of a split."""
