"""Batches on the device, in a seeded order and with augmentation."""

import math
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vaekit.config.data import DataConfig
from vaekit.data.augment import augment
from vaekit.data.samplers import BalancedSampler, BatchSampler
from vaekit.data.sources.pixels import Pixels, slices
from vaekit.errors import UserError
from vaekit.utils.random import derive_seed

Labels = Int64[Tensor, " B"] | Float[Tensor, "B _"]
"""Numbers of classes [B], or conditions [B, K]."""
Batch = tuple[Float[Tensor, "B C H W"], Labels | None]
PixelBatch = tuple[UInt8[Tensor, "B HWC"], Labels | None]

DRAWS_PER_BLOCK = 1 << 14
"""Draws whose rows are computed at once, in constant memory."""


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

    def split_labels(self, split: str) -> NDArray[Any]:
        """Class numbers int64 [count] of all images of a split, -1 without classes; or their conditions,
        float32 [count, K]."""

    def read(self, split: str, rows: NDArray[np.int64]) -> tuple[Pixels, NDArray[Any]]:
        """Images uint8 [n, H, W, C] of some rows (0 to count - 1) of a split, and their class numbers int64
        [n] or conditions float32 [n, K]."""


class ImageLoader:
    """Iterate over the images of a source in batches (x, y).

    `x` is float32 [B, C, H, W] in [0, 1] on the device, in channels_last memory format, which convolutions
    prefer; `y` is int64 [B] with classes, float32 [B, K] with conditions, or None. Order and augmentation
    depend on seed, epoch and number of the draw alone, neither on the batch size nor on the number of
    processes.

    Args:
        source: the images, such as a `Pack`.
        settings: augmentation, and whether classes are balanced.
        batch_size: images per training step, over all processes; at most the number of training images.
        seed: seed of order and augmentation.
        device: device of the batches.
        rank: number of this process, which gets an equal, contiguous part of every training batch.
        world_size: number of processes, by which `batch_size` must be divisible.
        steps_per_epoch: batches that an epoch consists of; 0 for one pass over the images.
    """

    def __init__(
        self,
        source: ImageSource,
        settings: DataConfig,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
        steps_per_epoch: int = 0,
    ) -> None:
        self.source, self.settings, self.seed, self.device = source, settings, seed, device
        self.count = source.count("train")
        if batch_size > self.count:
            batch_size = self.count - self.count % world_size
        self.batch_size = batch_size
        if settings.balance and not source.classes:
            raise UserError("needs classes.", "Sort the images into one folder per class.", option="balance")
        ranks = batch_size, rank, world_size
        self._sampler = BatchSampler(self.count, *ranks)
        if settings.balance:
            self._sampler = BalancedSampler(source.split_labels("train"), *ranks)
        self.steps_per_pass = self.count // batch_size
        """Full batches per pass over the images; the remaining ones are drawn in other passes."""
        self.steps_per_epoch = steps_per_epoch or self.steps_per_pass
        self._device_cache = self._cache_on_device() if device.type == "cuda" else None

    def _cache_on_device(self) -> tuple[Tensor, Tensor] | None:
        """The training images and labels on the device, if they fit into half of its free memory."""
        torch.cuda.empty_cache()  # left behind by trials of other settings
        shape = (self.count, math.prod(self.source.shape))
        if math.prod(shape) > torch.cuda.mem_get_info(self.device)[0] // 2:
            return None
        pixels = torch.empty(shape, dtype=torch.uint8, device=self.device)
        for part in slices(self.count):
            images, _ = self.source.read("train", np.arange(part.start, part.stop))
            pixels[part] = torch.from_numpy(images).flatten(1).to(self.device)
        return pixels, torch.from_numpy(np.array(self.source.split_labels("train"))).to(self.device)

    def train(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over this process's part of the batches of an epoch from batch `start`, augmented."""
        block = max(1, DRAWS_PER_BLOCK // self.batch_size)
        first, end = (epoch * self.steps_per_epoch + step for step in (start, self.steps_per_epoch))
        while first < end:
            turn, step = divmod(first, self.steps_per_pass)
            steps = range(step, min(step + block, self.steps_per_pass, step + end - first))
            order_seed, augment_seed = (derive_seed(self.seed, what, turn) for what in ("order", "augment"))
            rows = self._sampler.batches(steps, order_seed)
            for step, (x, y) in zip(steps, self._gather(rows), strict=True):
                first_draw = step * self.batch_size + self._sampler.offset
                yield augment(self._to_float(x), self.settings, augment_seed, first_draw), y
            first += len(steps)

    def split(self, name: str, limit: int | None = None, size: int | None = None) -> Iterator[Batch]:
        """Iterate over a split in order, without augmentation; every process gets all of it.

        Args:
            name: "train", "validation" or "test".
            limit: maximum number of images, evenly spread over the split.
            size: images per batch; default: `batch_size`.
        """
        count, size = self.source.count(name), size or self.batch_size
        used = count if limit is None else min(limit, count)
        for start in range(0, used, size):
            rows = np.arange(start, min(start + size, used)) * count // used
            x, y = self._read(name, rows)
            yield self._to_float(x), y

    def _gather(self, batches: NDArray[np.int64]) -> Iterator[PixelBatch]:
        """Pixels and labels on the device for each row of `batches` [steps, B]."""
        if self._device_cache is None:
            yield from (self._read("train", rows) for rows in batches)
            return
        pixels, labels = self._device_cache
        for indices in self._to_device(batches).unbind(0):
            y = labels.index_select(0, indices) if self._labelled(labels) else None
            yield pixels.index_select(0, indices), y

    def _read(self, split: str, rows: NDArray[np.int64]) -> PixelBatch:
        images, labels = self.source.read(split, rows)
        y = self._to_device(labels) if self._labelled(labels) else None
        return self._to_device(images.reshape(len(rows), -1)), y

    def _labelled(self, labels: NDArray[Any] | Tensor) -> bool:
        return bool(self.source.classes) or labels.ndim == 2

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        """Copy an array to the device, without waiting on CUDA."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _to_float(self, pixels: UInt8[Tensor, "B HWC"]) -> Float[Tensor, "B C H W"]:
        channels, height, width = self.source.shape
        return torch.div(pixels.view(len(pixels), height, width, channels).permute(0, 3, 1, 2), 255)
