"""Arrays as the images of a pack: checked, numbered, resized only if a size is set."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.config.data import DataConfig
from vaekit.data.decoding.decode import to_rgb
from vaekit.data.decoding.pool import cores
from vaekit.data.decoding.resize import DecodeSpec, resize, to_bytes
from vaekit.data.decoding.values import Values, range_of
from vaekit.data.decoding.worker import short_digest
from vaekit.data.packs.decoded import DecodedSource, Labels
from vaekit.data.packs.reading import decode_spec
from vaekit.data.sources.arrays import ArrayBlock, ArraySource
from vaekit.data.sources.layout import NO_CLASS
from vaekit.data.sources.pixels import Limits, Pixels, as_uint8, check_pixels, slices
from vaekit.data.splits import SPLITS
from vaekit.errors import UserError
from vaekit.utils.files import natural_sort_key
from vaekit.utils.logging import progress


def decode_arrays(source: ArraySource, settings: DataConfig, quiet: bool) -> DecodedSource:
    """Read arrays; images are resized only if a size is set."""
    blocks = _checked_blocks(source, settings)
    recorded = _limits(blocks, settings)
    limits = None if source.has_levels else recorded
    height, width, channels = blocks[0].images.shape[1:]
    labels, classes = _number_labels(blocks, source)
    starts = np.cumsum([0, *(len(block.images) for block in blocks)])
    target = decode_spec(settings, *(settings.width_height or (width, height)))
    flattened = channels == 4 and not target.keep_alpha
    resized = (target.height, target.width) != (height, width) or flattened
    colored_padding = target.fit == "pad" and resized and len(set(target.background)) > 1
    out_channels = 3 if flattened or (channels == 1 and colored_padding) else channels

    def read(rows: NDArray[np.intp]) -> Pixels:
        block = np.searchsorted(starts, rows[0], "right") - 1  # all rows of a split are in one block
        images = as_uint8(blocks[block].images[rows - starts[block]], limits)
        return _resize_images(images, target, out_channels) if resized else images

    def path(row: int) -> str:
        block = int(np.searchsorted(starts, row, "right")) - 1
        return f"{SPLITS[blocks[block].split]}/{row - starts[block]}"

    size_note = f"{width}x{height} (not resized)"
    if resized:
        size_note = f"resized from {width}x{height} to {target.width}x{target.height}"
    notes = list(source.notes)
    if channels == 1 and len(labels) == 3 and min(height, width) > 3:
        text = f"The array is taken for 3 gray images of {width}x{height}."
        notes.append(f"{text} If it is one picture [C, H, W], that is images.transpose(1, 2, 0)[None].")
    elif channels == 1 and len(labels) == height != width:
        text = f"The array is taken for {len(labels):,} gray images of {width}x{height}."
        notes.append(f"{text} If it is [H, W, N], give images.transpose(2, 0, 1).")
    return DecodedSource(
        path=path,
        notes=notes,
        labels=labels,
        classes=classes,
        splits=np.repeat(np.array([block.split for block in blocks], np.int8), np.diff(starts)),
        content=_digest_images(blocks, limits, quiet),
        sizes=np.broadcast_to(np.array([width, height], np.int32), (len(labels), 2)),
        shape=(target.height, target.width, out_channels),
        read=read,
        size_note=size_note,
        reading={"limits": recorded, "level_limits": recorded, "background": settings.background},
        white=source.white or (1.0 if blocks[0].images.dtype.kind == "f" else 255.0),
        drop_copies=settings.copies == "drop",
        bands=out_channels not in (1, 3, 4),
    )


def _limits(blocks: Sequence[ArrayBlock], settings: DataConfig) -> Limits:
    """The values that become black and white; None to leave levels as they are, and scale 0 to 1."""
    if settings.range != "auto-set":
        return settings.limits
    ranges = [range_of(Values(block.images[part])) for block in blocks for part in slices(len(block.images))]
    low, high = min(one.low for one in ranges), max(one.high for one in ranges)
    return low, max(high, low + 1e-6)


def _checked_blocks(source: ArraySource, settings: DataConfig) -> list[ArrayBlock]:
    """The blocks of a source that are not empty, with images of one shape."""
    blocks = [block for block in source.read() if len(block.images)]
    if not blocks:
        raise UserError(f"'{source.name}' contains no images; at least 2 are needed.")
    for block in blocks:
        if settings.range == "auto":
            check_pixels(block.images, f"'{source.name}'")
        if block.images.shape[1:] != blocks[0].images.shape[1:]:
            shapes = " and ".join("x".join(map(str, b.images.shape[1:])) for b in (blocks[0], block))
            raise UserError(f"The splits of '{source.name}' differ in image shape: {shapes}.")
    return blocks


def _digest_images(blocks: Sequence[ArrayBlock], limits: Limits, quiet: bool) -> NDArray[np.uint64]:
    digests: list[NDArray[np.uint64]] = []
    with progress(sum(len(block.images) for block in blocks), "Reading images", quiet=quiet) as advance:
        for block in blocks:
            for part in slices(len(block.images)):
                images = np.ascontiguousarray(as_uint8(block.images[part], limits))
                part_digests = [short_digest(hashlib.sha256(image.data).digest()) for image in images]
                digests.append(np.array(part_digests, np.uint64))
                advance(len(images))
    return np.concatenate(digests)


def _resize_images(images: Pixels, target: DecodeSpec, channels: int) -> Pixels:
    def resize_one(image: Pixels) -> bytes:
        opened = Image.fromarray(image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image))
        return to_bytes(resize(to_rgb(opened, target), target), channels)

    with ThreadPoolExecutor(cores()) as threads:
        data = b"".join(threads.map(resize_one, images))
    return np.frombuffer(data, np.uint8).reshape(len(images), target.height, target.width, channels)


def _number_labels(blocks: Sequence[ArrayBlock], source: ArraySource) -> tuple[Labels, tuple[str, ...]]:
    """Convert the labels of all blocks to class numbers; also return the names of the classes."""
    known = [_checked_labels(block, source.name) for block in blocks if block.labels is not None]
    known = [np.char.decode(labels, "utf-8") if labels.dtype.kind == "S" else labels for labels in known]
    if not known:
        return np.full(sum(len(block.images) for block in blocks), -1, np.int64), ()
    values = np.unique(np.concatenate(known))
    if values.dtype.kind in "US":  # the same labels, in natural order
        names = tuple(sorted(map(str, values.tolist()), key=natural_sort_key))
        numbers_of = {name: number for number, name in enumerate(names)}
        known = [np.array([numbers_of[str(label)] for label in labels.tolist()]) for labels in known]
        return _joined(blocks, known, names)
    class_numbers = np.arange(len(source.classes))
    if values.dtype.kind in "iu" and np.isin(values, class_numbers).all():
        values, names = class_numbers, source.classes
    else:
        names = tuple(str(value) for value in values.tolist())
    return _joined(blocks, [np.searchsorted(values, labels) for labels in known], names)


def _joined(
    blocks: Sequence[ArrayBlock], known: list[NDArray[Any]], names: tuple[str, ...]
) -> tuple[Labels, tuple[str, ...]]:
    """The class numbers of all blocks; those without labels are in a class of their own."""
    numbered = iter(known)
    numbers = [
        np.full(len(block.images), len(names)) if block.labels is None else next(numbered) for block in blocks
    ]
    classes = names if len(known) == len(blocks) else (*names, NO_CLASS)
    return np.concatenate(numbers).astype(np.int64), classes


def _checked_labels(block: ArrayBlock, name: str) -> NDArray[Any]:
    labels = np.asarray(block.labels)
    labels = labels.reshape(len(labels)) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (len(block.images),):
        shape = " x ".join(map(str, labels.shape))
        message = f"'{name}' has {len(block.images)} images but labels of shape {shape}."
        one_hot = labels.ndim == 2 and len(labels) == len(block.images)
        hint = " Of one-hot vectors, that is labels.argmax(1)." if one_hot else ""
        raise UserError(message, f"Give one label per image.{hint}")
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubUS":
        raise UserError(f"The labels of '{name}' have dtype {labels.dtype}.", "Use integers or strings.")
    return labels
