"""Selected images of a pack, as arrays and as batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vaekit.data.loader import Batch
from vaekit.data.packs.pack import Pack
from vaekit.data.sources.pixels import to_uint8_images
from vaekit.errors import UserError
from vaekit.models.terms import Labels
from vaekit.utils.files import printable

EVAL_BATCH = 64
"""Images evaluated at once."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Rows of a pack, with class indices or conditions for a conditional model."""

    pack: Pack
    rows: NDArray[np.int64]
    class_indices: Labels | None
    """Those of all images of the pack, or their conditions; None for an unconditional model."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pixels(self) -> UInt8[np.ndarray, "N H W C"]:
        """The images, read into memory."""
        return np.asarray(self.pack.images[self.rows])

    @property
    def labels(self) -> Labels | None:
        """The model's class indices, or conditions; None for an unconditional model."""
        return None if self.class_indices is None else self.class_indices[torch.from_numpy(self.rows)]

    @property
    def class_names(self) -> list[str] | None:
        """The class of every image; None if the pack has no classes."""
        if not self.pack.classes:
            return None
        return [printable(self.pack.classes[label]) for label in np.asarray(self.pack.labels)[self.rows]]

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> "ImageSet":
        return replace(self, rows=self.rows[rows])

    def spread(self, count: int) -> "ImageSet":
        """At most `count` of the images, evenly spread."""
        count = max(1, min(count, len(self)))
        return self[np.arange(count) * len(self) // count]

    def batches(self, device: torch.device, size: int = EVAL_BATCH) -> Iterator[Batch]:
        """Iterate over batches of `size`: x [B, C, H, W] in [0, 1], and labels [B] or None."""
        for start in range(0, len(self), size):
            part = self[start : start + size]
            y = None if part.labels is None else part.labels.to(device)
            yield to_tensor(part.pixels, self.pack.shape).to(device), y


def to_tensor(images: Any, shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
    """Convert images [N, H, W, C], uint8 or floats in [0, 1], to inputs of a model of `shape` (C, H, W)."""
    array = np.require(to_uint8_images(images), requirements=("C", "W"))  # torch warns about others
    channels, height, width = shape
    if array.shape[1:] != (height, width, channels):
        message = f"This model takes images [N, {height}, {width}, {channels}], not {list(array.shape)}."
        raise UserError(message, "Resize them first, or use `vaekit reconstruct` on the files.")
    # Always in one memory order, since convolutions round differently in another
    x = torch.from_numpy(array).permute(0, 3, 1, 2).float()
    return x.clone(memory_format=torch.contiguous_format) / 255
