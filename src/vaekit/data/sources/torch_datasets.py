"""A torch `Dataset` or `DataLoader` as a source: read once, in its order, into a temporary file."""

import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaekit.data.decoding.decode import in_range, to_rgb
from vaekit.data.decoding.resize import DecodeSpec, resize, to_bytes
from vaekit.data.sources.arrays import (
    ArrayBlock,
    ArraySource,
    content_key,
)
from vaekit.data.sources.pixels import COLOURS, Pixels, as_uint8, is_tensor, to_nhwc, to_uint8_images
from vaekit.errors import UserError, setting
from vaekit.utils.logging import progress

IMAGE_KEYS = ("image", "img", "pixel_values", "images", "x", "input", "data")
LABEL_KEYS = ("label", "labels", "class", "target", "y", "fine_label", "coarse_label")
"""Names under which items that are dictionaries hold an image and its label."""


def is_dataset(value: Any) -> bool:
    """Whether `value` is a torch `Dataset` or `DataLoader`, or what other libraries have of the kind."""
    data = sys.modules.get("torch.utils.data")
    if data is not None and isinstance(value, (data.Dataset, data.DataLoader)):
        return True
    known = isinstance(value, (str, bytes, os.PathLike, list, tuple, dict, np.ndarray)) or is_tensor(value)
    return not known and hasattr(value, "__getitem__") and not hasattr(value, "__array__")


def dataset_source(source: Any, folder: Path, target: DecodeSpec, resizing: bool, quiet: bool) -> ArraySource:
    """Read all items of a `Dataset` or `DataLoader`: an image or (image, label).

    Images are Pillow images, or tensors [C, H, W] or [H, W]; without `resizing` all must have the same size.
    The disk of `folder` must have space for the uncompressed images.
    """
    name = f"the {type(source).__name__}"
    labels: list[Any] = []
    unread: set[str] = set()
    white = 255.0
    shape: tuple[int, ...] | None = None
    all_gray = True
    total = _length(source) or 0
    # A file without a name disappears with this process, however that ends.
    text = "Reading images"
    with tempfile.TemporaryFile(dir=folder) as spool, progress(total, text, quiet=quiet) as advance:
        for image, label, others in _items(source, name):
            row, gray = _row(image, target, resizing, name)
            if shape is not None and row.shape != shape:
                shapes = " and ".join("x".join(map(str, one)) for one in (shape, row.shape))
                hint = f"Set {setting('size')}, or resize them in its transform."
                raise UserError(f"The images of {name} differ in shape: {shapes}.", hint)
            shape, all_gray = row.shape, all_gray and gray
            spool.write(row.data)
            labels.append(_label(label, image, name))
            unread |= others
            if label is not None and labels[-1] is None:
                unread.add("the second image")
            white = 1.0 if "float" in str(getattr(image, "dtype", "")) else white
            advance(1)
        if shape is None:
            raise UserError(f"There are no items in {name}; at least 2 images are needed.")
        spool.flush()
        images = np.memmap(spool, np.uint8, "r", shape=(len(labels), *shape))
    unlabelled = sum(label is None for label in labels)
    if unlabelled not in (0, len(labels)):
        raise UserError(f"Only some items of {name} have a label.", "Give all items a label, or none.")
    block = ArrayBlock(images[..., :1] if all_gray else images, None if unlabelled else np.asarray(labels))
    notes = (f"Not read of the items of {name}: {', '.join(sorted(unread))}.",) if unread else ()
    key = (*content_key(block), repr(notes))
    return ArraySource("dataset", key, lambda: [block], notes=notes, has_levels=True, white=white)


def _length(source: Any) -> int | None:
    """The number of items, or None where that is not known."""
    try:
        return len(source)
    except TypeError:  # of a stream, also inside a DataLoader
        return None


def _items(source: Any, name: str) -> Iterator[tuple[Any, Any, set[str]]]:
    """Iterate over the images, each with its label or None, and what is not read of the item."""
    data = sys.modules.get("torch.utils.data")
    if data is not None and isinstance(source, data.DataLoader):
        hint = "Give the data set itself, loader.dataset."
        for batch in _without_errors(iter(source), f"A batch of {name}", hint):
            images, labels, unread = _parts(batch, name, f"A batch of {name}")
            if not hasattr(images, "__len__"):
                raise UserError(f"A batch of {name} is neither images nor (images, labels).")
            for index in range(len(images)):
                yield images[index], None if labels is None else labels[index], unread
        return
    for item in _iterate(source, data):
        yield _parts(item, name, f"An item of {name}")


def _iterate(source: Any, data: Any) -> Iterator[Any]:
    hint = "Correct the data set, or leave the item out."
    if data is not None and isinstance(source, data.IterableDataset):
        yield from _without_errors(iter(source), f"An item of the {type(source).__name__}", hint)
        return
    count = _length(source)
    for index in itertools.count() if count is None else range(count):
        try:
            item = source[index]
        except Exception as error:
            if isinstance(error, IndexError) and count is None:  # the end
                return
            message = f"Item {index} of the {type(source).__name__} cannot be read ({_reason(error)})."
            raise UserError(message, hint) from error
        yield item


def _without_errors(items: Iterator[Any], text: str, hint: str) -> Iterator[Any]:
    """The items; an error on the way becomes a UserError."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:
            raise UserError(f"{text} cannot be read ({_reason(error)}).", hint) from error
        yield item


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _parts(item: Any, name: str, text: str) -> tuple[Any, Any, set[str]]:
    """The image and the label, or None, of an item, and the names of what else is in it."""
    if isinstance(item, Mapping):
        images = [key for key in IMAGE_KEYS if key in item]
        labels = [key for key in LABEL_KEYS if key in item]
        if not images:
            keys = ", ".join(map(str, item))
            hint = "Name the image 'image' and the label 'label', or give (image, label)."
            raise UserError(f"{text} has the keys {keys}.", hint)
        unread = {str(key) for key in item if key not in (images[0], *labels[:1])}
        return item[images[0]], item[labels[0]] if labels else None, unread
    parts = item if isinstance(item, (tuple, list)) else (item,)
    if len(parts) not in (1, 2):
        hint = "It must be an image, or (image, label)."
        raise UserError(f"{text} has {len(parts)} parts.", hint)
    return parts[0], parts[1] if len(parts) == 2 else None, set()


def _label(label: Any, image: Any, name: str) -> Any:
    """A label as a number or a text, that of a one-hot vector too; None if it is the image once more."""
    if label is None or isinstance(label, (str, bytes, int, float)):
        return label
    if isinstance(label, Image.Image):
        return None
    hint = "A label is a number or a name; omit it if there are no classes."
    values = np.asarray(label.detach().cpu() if is_tensor(label) else label)
    if values.dtype == object:
        raise UserError(f"The label of an item of {name} is a {type(label).__name__}.", hint)
    if values.size == 1:
        return values.reshape(-1)[0].item()
    if values.ndim == 1 and ((values == 0) | (values == 1)).all() and values.sum() == 1:
        return int(values.argmax())
    if values.shape == np.shape(image):  # a pair of an input and a target, as for an autoencoder
        return None
    shape = " x ".join(map(str, values.shape))
    raise UserError(f"The label of an item of {name} has shape {shape}.", hint)


def _row(image: Any, target: DecodeSpec, resizing: bool, name: str) -> tuple[Pixels, bool]:
    """An item as uint8 [H, W, C], and whether it is gray."""
    if isinstance(image, Image.Image) and (image.mode == "F" or image.mode.startswith("I")):
        image = np.asarray(image)
    if not isinstance(image, Image.Image):
        if not (is_tensor(image) or isinstance(image, np.ndarray)):
            message = f"An item of {name} has type {type(image).__name__}."
            raise UserError(message, "Use tensors or Pillow images.")
        if not is_tensor(image) and image.ndim == 3 and image.shape[2] not in COLOURS:
            image = image.transpose(1, 2, 0) if image.shape[0] in COLOURS else image
        array = (
            as_uint8(to_nhwc(image[None], name), target.limits)
            if target.limits
            else to_uint8_images(image[None], name)
        )
        array = array[0]
        if not resizing:
            return np.ascontiguousarray(array), array.shape[2] == 1
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        ready: Any = to_rgb(image, target)
    else:
        ready = in_range(to_rgb(image, target), target._replace(bands=()))
    picture: Any = resize(ready, target) if resizing else ready
    channels = 4 if target.keep_alpha else 3
    row = np.frombuffer(to_bytes(picture, channels), np.uint8).reshape(
        picture.height, picture.width, channels
    )
    return row, picture.mode == "L"
