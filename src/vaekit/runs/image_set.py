"""Some images of a pack, in order, as batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vaekit.data.loader import Batch
from vaekit.data.packs.pack import Pack
from vaekit.data.sources.arrays import to_uint8_images
from vaekit.errors import UserError

# --- arrays, classes and counts --------------------------------------------------------------------------------------


def to_tensor(images: Any, shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
    """Images [N, H, W, C], uint8 or floats from 0 to 1, as a model of `shape` (C, H, W) takes them.

    Raises:
        UserError: images of another shape.
    """
    array = np.require(to_uint8_images(images), requirements=("C", "W"))  # torch refuses or warns of others
    channels, height, width = shape
    if array.shape[1:] != (height, width, channels):
        raise UserError(
            f"This model takes images [N, {height}, {width}, {channels}], not {list(array.shape)}: "
            "resize them first, or use `vaekit reconstruct` on the files."
        )
    # the same memory order for every input: convolutions round differently in another
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().clone(memory_format=torch.contiguous_format) / 255


BATCH = 64
"""Images judged together."""


@dataclass(frozen=True, eq=False)
class NamedImages:
    """All images of a data set in the natural order of their paths: 2.png before 10.png."""

    pack: Pack
    paths: list[str]
    labels: list[str] | None
    """Names of their classes, where they have any."""
    rows: NDArray[np.int64]
    """[N], their places in the pack."""


def batches(
    pack: Pack, rows: NDArray[np.int64], numbers: Tensor | None, size: int, device: torch.device
) -> Iterator[Batch]:
    """The images of some rows of a pack in their order, `size` at a time; `numbers` [N] are the classes of all its
    images, where the model wants them."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        y = None if numbers is None else numbers[torch.from_numpy(part)].to(device)
        yield to_tensor(pack.images[part], pack.shape).to(device), y


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Some rows of a pack, with the numbers of their classes for a conditional model."""

    pack: Pack
    rows: NDArray[np.int64]
    numbers: Int64[Tensor, " M"] | None
    """Of all images of the pack."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pixels(self) -> UInt8[np.ndarray, "N H W C"]:
        return np.asarray(self.pack.images[self.rows])

    @property
    def labels(self) -> Int64[Tensor, " N"] | None:
        return None if self.numbers is None else self.numbers[torch.from_numpy(self.rows)]

    def some(self, rows: slice) -> "ImageSet":
        return replace(self, rows=self.rows[rows])

    def spread(self, count: int) -> "ImageSet":
        """`count` of them, or all, evenly spread."""
        kept = max(1, min(count, len(self)))
        return replace(self, rows=self.rows[np.arange(kept) * len(self) // kept])

    def batches(self, device: torch.device) -> Iterator[Batch]:
        return batches(self.pack, self.rows, self.numbers, BATCH, device)
