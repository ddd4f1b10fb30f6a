"""A torch `Dataset` or `DataLoader` as a source: read once, in the order it gives, into a file that has no name."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaekit.data.decoding.decode import ResizeSpec, resize, to_bytes, to_rgb
from vaekit.data.sources.arrays import ArrayBlock, ArraySource, content_key, is_tensor, to_uint8_images
from vaekit.errors import UserError
from vaekit.utils.logging import progress


def is_dataset(value: Any) -> bool:
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(value, (data.Dataset, data.DataLoader))


def dataset_source(source: Any, folder: Path, target: ResizeSpec, resizing: bool, quiet: bool) -> ArraySource:
    """Every item of `source`: an image or (image, label); images are Pillow images, or tensors [C, H, W] or [H, W].

    Args:
        folder: a folder on a disk with room for the images, uncompressed.
        target: what images are made into where `resizing` is true; otherwise they keep their size, which must be one.

    Raises:
        UserError: an item that is no image, or images of different shapes.
    """
    name = f"the {type(source).__name__}"
    labels: list[Any] = []
    shape: tuple[int, ...] | None = None
    all_gray = True
    total = len(source) if hasattr(source, "__len__") else 0
    # The file has no name: it is gone with this process, whatever happens to it.
    with (
        tempfile.TemporaryFile(dir=folder) as spool,
        progress(total, f"Reading {name}", "items", quiet=quiet) as advance,
    ):
        for image, label in _items(source, name):
            row, gray = _row(image, target, resizing, name)
            if shape is not None and row.shape != shape:
                raise UserError(
                    f"The images of {name} differ in shape ({_shape_text(shape)}, then {_shape_text(row.shape)}): "
                    "give --size, or "
                    "make them equal in its transform."
                )
            shape, all_gray = row.shape, all_gray and gray
            spool.write(row.data)
            labels.append(label)
            advance(1)
        if shape is None:
            raise UserError(f"{name} is empty: give one with at least 2 images.")
        spool.flush()
        images = np.memmap(spool, np.uint8, "r", shape=(len(labels), *shape))
    if any((label is None) != (labels[0] is None) for label in labels):
        raise UserError(f"Some items of {name} have a label and some have none: give all of them one, or none.")
    label_array = None if labels[0] is None else np.asarray(labels)
    block = ArrayBlock(images[..., :1] if all_gray else images, label_array)
    return ArraySource("dataset", content_key(block), lambda: [block])


def _items(source: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """The images one by one, each with its label or None."""
    from torch.utils.data import DataLoader, IterableDataset

    if isinstance(source, DataLoader):
        for batch in source:
            images, labels = batch if isinstance(batch, (tuple, list)) and len(batch) == 2 else (batch, None)
            if isinstance(images, (tuple, list)) and len(images) == 1:  # a TensorDataset without labels
                images = images[0]
            if not hasattr(images, "__len__"):
                raise UserError(f"A batch of {name} is neither images nor (images, labels): give one that is.")
            for index in range(len(images)):
                yield images[index], None if labels is None else _plain_label(labels[index])
        return
    items = iter(source) if isinstance(source, IterableDataset) else (source[index] for index in range(len(source)))
    for item in items:
        if isinstance(item, (tuple, list)):
            if len(item) not in (1, 2):
                raise UserError(f"An item of {name} has {len(item)} parts: give an image, or an image and its label.")
            yield item[0], _plain_label(item[1]) if len(item) == 2 else None
        else:
            yield item, None


def _plain_label(label: Any) -> Any:
    return label.item() if hasattr(label, "item") else label


def _row(image: Any, target: ResizeSpec, resizing: bool, name: str) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], bool]:
    """One item as uint8 [H, W, C], and whether it is gray."""
    if not isinstance(image, Image.Image):
        if not (is_tensor(image) or isinstance(image, np.ndarray)):
            raise UserError(f"An item of {name} is a {type(image).__name__}: give tensors or Pillow images.")
        array = to_uint8_images(image[None], name)[0]
        if not resizing:
            return np.ascontiguousarray(array), array.shape[2] == 1
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    ready = to_rgb(image, target)
    ready = resize(ready, target) if resizing else ready
    channels = 4 if target.keep_alpha else 3
    row = np.frombuffer(to_bytes(ready, channels), np.uint8).reshape(ready.height, ready.width, channels)
    return row, ready.mode == "L"


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
