"""Some images of a pack, in order, as arrays and as batches."""

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
from vaekit.utils.files import printable

BATCH = 64
"""Images evaluated at once."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Some rows of a pack; for a conditional model with the model's class indices."""

    pack: Pack
    rows: NDArray[np.int64]
    class_indices: Int64[Tensor, " M"] | None
    """Of all images of the pack; None for an unconditional model."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pixels(self) -> UInt8[np.ndarray, "N H W C"]:
        """The images, all in memory."""
        return np.asarray(self.pack.images[self.rows])

    @property
    def labels(self) -> Int64[Tensor, " N"] | None:
        """Class indices of the model."""
        return None if self.class_indices is None else self.class_indices[torch.from_numpy(self.rows)]

    @property
    def class_names(self) -> list[str] | None:
        """The class of every image, as text; None if the pack has no classes."""
        if not self.pack.classes:
            return None
        return [printable(self.pack.classes[label]) for label in np.asarray(self.pack.labels)[self.rows]]

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> "ImageSet":
        return replace(self, rows=self.rows[rows])

    def spread(self, count: int) -> "ImageSet":
        """`count` of them, or all, evenly spread."""
        count = max(1, min(count, len(self)))
        return self[np.arange(count) * len(self) // count]

    def batches(self, device: torch.device, size: int = BATCH) -> Iterator[Batch]:
        """x [B, C, H, W] in [0, 1] and the model's labels [B], or None, `size` at a time."""
        for start in range(0, len(self), size):
            part = self[start : start + size]
            y = None if part.labels is None else part.labels.to(device)
            yield to_tensor(part.pixels, self.pack.shape).to(device), y


def to_tensor(images: Any, shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
    """Images [N, H, W, C], uint8 or floats from 0 to 1, as a model of `shape` (C, H, W) takes them.

    Raises:
        UserError: images of another shape.
    """
    array = np.require(to_uint8_images(images), requirements=("C", "W"))  # torch refuses or warns of others
    channels, height, width = shape
    if array.shape[1:] != (height, width, channels):
        raise UserError(
            f"This model takes images [N, {height}, {width}, {channels}], not {list(array.shape)}.",
            "Resize them first, or use `vaekit reconstruct` on the files.",
        )
    # The same memory order for every input: convolutions round differently in another
    return (
        torch.from_numpy(array).permute(0, 3, 1, 2).float().clone(memory_format=torch.contiguous_format) / 255
    )
