"""Batches: a seeded order, augmentation, and the way to the device."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vaekit.config.data import DataConfig
from vaekit.data.augment import augment
from vaekit.data.packs.pack import Pack
from vaekit.data.samplers import BalancedSampler, ShuffleSampler
from vaekit.errors import UserError
from vaekit.utils.random import derive_seed

Batch = tuple[Float[Tensor, "B C H W"], Int64[Tensor, " B"] | None]


DRAWS_PER_BLOCK = 1 << 14
"""Draws whose order is worked out at once: memory does not grow with the number of images."""


class ImageLoader:
    """The images of a pack, batch by batch.

    `x` is float32 [B, C, H, W] in [0, 1] on the device, colours last in memory (channels_last) as convolutions like
    it; `y` is int64 [B], or None without classes. Order and augmentation depend on (seed, epoch, number of the draw in
    its epoch) alone: neither on the batch size nor on where an epoch is entered.
    """

    def __init__(self, pack: Pack, settings: DataConfig, batch_size: int, seed: int, device: torch.device) -> None:
        """Raises UserError where `settings.balance` meets a pack without classes."""
        self.pack, self.settings, self.seed, self.device = pack, settings, seed, device
        train = pack.splits["train"]
        self.count = train.stop - train.start
        self.batch_size = min(batch_size, self.count)
        self.steps_per_epoch = self.count // self.batch_size
        """Full batches of an epoch: what is left over is drawn in another epoch."""
        if settings.balance and not pack.classes:
            raise UserError("--balance needs classes: sort the images into a folder per class, or leave it out.")
        self._order = BalancedSampler(pack.labels[train]) if settings.balance else ShuffleSampler(self.count)
        self._pixels = np.asarray(pack.images).reshape(len(pack.images), -1)
        self._labels = np.asarray(pack.labels) if pack.classes else None
        self._device_cache = self._cache_on_device() if device.type == "cuda" else None

    @property
    def resident(self) -> bool:
        """Whether the training images stay on the device."""
        return self._device_cache is not None

    def _cache_on_device(self) -> tuple[Tensor, Tensor | None] | None:
        """The training images and labels on the device, where they take up to half of its free memory."""
        train = self.pack.splits["train"]
        torch.cuda.empty_cache()  # what a trial of settings has left behind
        pixels, free = self._pixels[train], torch.cuda.mem_get_info(self.device)[0]
        if pixels.nbytes > free // 2:
            return None
        labels = None if self._labels is None else torch.from_numpy(self._labels[train]).to(self.device)
        return torch.from_numpy(pixels).to(self.device), labels

    def train(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on, shuffled and augmented."""
        size = self.batch_size
        order_seed = derive_seed(self.seed, "order", epoch)
        augment_seed = derive_seed(self.seed, "augment", epoch)
        block = max(1, DRAWS_PER_BLOCK // size)
        for first in range(start, self.steps_per_epoch, block):
            last = min(first + block, self.steps_per_epoch)
            rows = self._order.rows(np.arange(first * size, last * size), order_seed).reshape(-1, size)
            for step, (x, y) in enumerate(self._gather(rows), first):
                yield augment(self._to_float(x), self.settings, augment_seed, step * size), y

    def split(self, name: str, limit: int | None = None, size: int | None = None) -> Iterator[Batch]:
        """The images of a split in order, as they are: all, or `limit` of them, evenly spread; `size` a batch."""
        split, size = self.pack.splits[name], size or self.batch_size
        count = split.stop - split.start
        used = count if limit is None else min(limit, count)
        for start in range(0, used, size):
            rows = split.start + np.arange(start, min(start + size, used)) * count // used
            y = None if self._labels is None else self._to_device(self._labels.take(rows))
            yield self._to_float(self._to_device(self._pixels.take(rows, axis=0))), y

    def _gather(self, rows: NDArray[np.int64]) -> Iterator[tuple[UInt8[Tensor, "B HWC"], Int64[Tensor, " B"] | None]]:
        """Pixels and labels on the device, for each line of `rows` [steps, B]."""
        if self._device_cache is not None:
            pixels, labels = self._device_cache
            for indices in self._to_device(rows).unbind(0):
                yield pixels.index_select(0, indices), None if labels is None else labels.index_select(0, indices)
            return
        # Gathered by NumPy: as fast as torch on one thread, and it does not wake the threads that compute.
        for indices in rows:  # the training images are the first of a pack
            y = None if self._labels is None else self._to_device(self._labels.take(indices))
            yield self._to_device(self._pixels.take(indices, axis=0)), y

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        """To the device, without waiting for it."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return (
            tensor.pin_memory().to(self.device, non_blocking=True)
            if self.device.type == "cuda"
            else tensor.to(self.device)
        )

    def _to_float(self, pixels: UInt8[Tensor, "B HWC"]) -> Float[Tensor, "B C H W"]:
        channels, height, width = self.pack.shape
        return torch.div(pixels.view(len(pixels), height, width, channels).permute(0, 3, 1, 2), 255)
