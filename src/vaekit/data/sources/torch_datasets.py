"""A torch `Dataset` or `DataLoader` as a source: read once, in its order, into a temporary file."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaekit.data.decoding.decode import ResizeSpec, resize, to_bytes, to_rgb
from vaekit.data.sources.arrays import (
    ArrayBlock,
    ArraySource,
    Pixels,
    content_key,
    is_tensor,
    to_uint8_images,
)
from vaekit.errors import UserError, setting
from vaekit.utils.logging import progress


def is_dataset(value: Any) -> bool:
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(value, (data.Dataset, data.DataLoader))


def dataset_source(source: Any, folder: Path, target: ResizeSpec, resizing: bool, quiet: bool) -> ArraySource:
    """Read all items of a `Dataset` or `DataLoader`: an image or (image, label).

    Images are Pillow images, or tensors [C, H, W] or [H, W]; without `resizing` all must have the same size.
    The disk of `folder` must have space for the uncompressed images.
    """
    name = f"the {type(source).__name__}"
    labels: list[Any] = []
    shape: tuple[int, ...] | None = None
    all_gray = True
    total = len(source) if hasattr(source, "__len__") else 0
    # A file without a name disappears with this process, however that ends.
    text = "Reading images"
    with tempfile.TemporaryFile(dir=folder) as spool, progress(total, text, quiet=quiet) as advance:
        for image, label in _items(source, name):
            row, gray = _row(image, target, resizing, name)
            if shape is not None and row.shape != shape:
                shapes = " and ".join("x".join(map(str, one)) for one in (shape, row.shape))
                hint = f"Set {setting('size')}, or resize them in its transform."
                raise UserError(f"The images of {name} differ in shape: {shapes}.", hint)
            shape, all_gray = row.shape, all_gray and gray
            spool.write(row.data)
            labels.append(label.item() if hasattr(label, "item") else label)
            advance(1)
        if shape is None:
            raise UserError(f"There are no items in {name}; at least 2 images are needed.")
        spool.flush()
        images = np.memmap(spool, np.uint8, "r", shape=(len(labels), *shape))
    unlabelled = sum(label is None for label in labels)
    if unlabelled not in (0, len(labels)):
        raise UserError(f"Only some items of {name} have a label.", "Give all items a label, or none.")
    block = ArrayBlock(images[..., :1] if all_gray else images, None if unlabelled else np.asarray(labels))
    return ArraySource("dataset", content_key(block), lambda: [block])


def _items(source: Any, name: str) -> Iterator[tuple[Any, Any]]:
    """Iterate over the images, each with its label or None."""
    from torch.utils.data import DataLoader, IterableDataset

    if isinstance(source, DataLoader):
        for batch in source:
            images, labels = batch if isinstance(batch, (tuple, list)) and len(batch) == 2 else (batch, None)
            if isinstance(images, (tuple, list)) and len(images) == 1:  # a TensorDataset without labels
                images = images[0]
            if not hasattr(images, "__len__"):
                raise UserError(f"A batch of {name} is neither images nor (images, labels).")
            for index in range(len(images)):
                yield images[index], None if labels is None else labels[index]
        return
    items = source if isinstance(source, IterableDataset) else map(source.__getitem__, range(len(source)))
    for item in items:
        parts = item if isinstance(item, (tuple, list)) else (item,)
        if len(parts) not in (1, 2):
            hint = "It must be an image, or (image, label)."
            raise UserError(f"An item of {name} has {len(parts)} parts.", hint)
        yield parts[0], parts[1] if len(parts) == 2 else None


def _row(image: Any, target: ResizeSpec, resizing: bool, name: str) -> tuple[Pixels, bool]:
    """An item as uint8 [H, W, C], and whether it is gray."""
    if not isinstance(image, Image.Image):
        if not (is_tensor(image) or isinstance(image, np.ndarray)):
            message = f"An item of {name} has type {type(image).__name__}."
            raise UserError(message, "Use tensors or Pillow images.")
        array = to_uint8_images(image[None], name)[0]
        if not resizing:
            return np.ascontiguousarray(array), array.shape[2] == 1
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    ready = to_rgb(image, target)
    ready = resize(ready, target) if resizing else ready
    channels = 4 if target.keep_alpha else 3
    row = np.frombuffer(to_bytes(ready, channels), np.uint8).reshape(ready.height, ready.width, channels)
    return row, ready.mode == "L"
