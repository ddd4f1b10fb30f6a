"""Building a pack from a source: choose a size, decode, assign splits, write."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from vaekit.config.data import DataConfig
from vaekit.data.decoding.decode import ResizeSpec, resize, to_bytes, to_rgb
from vaekit.data.decoding.pool import Job, cores, run_workers
from vaekit.data.decoding.worker import short_digest
from vaekit.data.packs.write import DecodedSource, count_reasons, require_pack_space, write_pack
from vaekit.data.sources.arrays import ArrayBlock, ArraySource, Pixels, as_uint8, check_pixels, slices
from vaekit.data.sources.folder import NO_CLASS, FolderSource
from vaekit.data.splits import SPLITS
from vaekit.errors import UserError, setting
from vaekit.utils.logging import progress

MAX_UNRESIZED_SIDE = 128
"""Images that all have the same size are not resized up to this many pixels per side."""
DEFAULT_SIDE = 64
"""Other images are resized to squares of at most this many pixels per side."""
Labels = NDArray[np.int64]


def build_pack(source: FolderSource | ArraySource, settings: DataConfig, folder: Path, quiet: bool) -> None:
    """Read all images of `source` and write their pack into the empty `folder`."""
    staging = folder / "staging"
    if isinstance(source, FolderSource):
        decoded = _decode_folder(source, settings, staging, quiet)
    else:
        decoded = _decode_arrays(source, settings, quiet)
    if len(decoded.labels) < 2:
        skipped = decoded.skipped
        skip_note = f" ({len(skipped):,} skipped: {count_reasons(skipped)})" if skipped else ""
        images = "1 usable image" if len(decoded.labels) else "no usable images"
        raise UserError(f"'{source.name}' contains {images}{skip_note}; at least 2 are needed.")
    write_pack(folder, decoded, source.name, settings)
    staging.unlink(missing_ok=True)


def resize_spec(settings: DataConfig, width: int, height: int) -> ResizeSpec:
    red, green, blue = ImageColor.getrgb(settings.background)[:3]
    return ResizeSpec(width, height, settings.fit, (red, green, blue), settings.alpha == "keep")


def _decode_folder(source: FolderSource, settings: DataConfig, staging: Path, quiet: bool) -> DecodedSource:
    """Decode the files of a folder into the file `staging`, in parallel processes."""
    count = len(source.files)
    width, height, size_note = _choose_size(source, settings, quiet)
    target = resize_spec(settings, width, height)
    channels = 4 if target.keep_alpha else 3  # how many are needed is known once all images are decoded
    require_pack_space(staging.parent, count, 2 * height * width * channels)
    with staging.open("wb") as file:
        file.truncate(count * height * width * channels)
    sizes, content = np.zeros((count, 2), np.int32), np.zeros(count, np.uint64)
    gray, alpha, usable = (np.zeros(count, np.bool_) for _ in range(3))
    skipped = list(source.skipped)
    with progress(count, "Reading images", quiet=quiet) as advance:
        for index, answer in run_workers(Job(str(source.root), str(staging), target, channels), source.files):
            if isinstance(answer, str):
                skipped.append((source.files[index], answer))
            else:
                sizes[index] = answer[:2]
                gray[index], alpha[index], content[index] = answer[2:]
                usable[index] = True
            advance(1)
    decoded = np.flatnonzero(usable)
    labels, classes = _number_classes([source.class_names[index] for index in decoded])
    used_channels = 1 if gray[decoded].all() else 4 if alpha[decoded].any() else 3
    staged = np.memmap(staging, np.uint8, "r", shape=(count, height, width, channels))
    return DecodedSource(
        path=lambda index: source.files[decoded[index]],
        labels=labels,
        classes=classes,
        splits=source.splits[decoded],
        content=content[decoded],
        sizes=sizes[decoded],
        shape=(height, width, used_channels),
        read=lambda rows: staged[decoded[rows]][..., :used_channels],
        size_note=size_note,
        skipped=sorted(skipped),
        other_files=source.other_files,
    )


def _number_classes(names: Sequence[str]) -> tuple[Labels, tuple[str, ...]]:
    """The number of each image's class, and the classes, sorted by name; -1 if none has a class."""
    classes = sorted(set(names), key=lambda name: (name == NO_CLASS, name))
    if classes == [NO_CLASS]:
        return np.full(len(names), -1, np.int64), ()
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[name] for name in names], np.int64), tuple(classes)


def _choose_size(source: FolderSource, settings: DataConfig, quiet: bool) -> tuple[int, int, str]:
    """Choose width and height for the images of a folder, from their headers unless set; and a size note."""
    fit = {"crop": "centre-cropped", "pad": "padded", "stretch": "stretched"}[settings.fit]
    if settings.width_height is not None:
        width, height = settings.width_height
        return width, height, f"resized to {width}x{height} and {fit}"
    answers: list[list[int]] = []
    with progress(len(source.files), f"Scanning {len(source.files):,} images", quiet=quiet) as advance:
        for _, answer in run_workers(Job(str(source.root)), source.files):
            if answer and not isinstance(answer, str):
                answers.append(answer)
            advance(1)
    if not answers:
        return DEFAULT_SIDE, DEFAULT_SIDE, ""
    sizes = np.array(answers)
    width, height = sizes.max(0).tolist()
    if (sizes == sizes[0]).all() and max(width, height) <= MAX_UNRESIZED_SIDE:
        return width, height, f"{width}x{height} (not resized)"
    size = max(1, min(DEFAULT_SIDE, int(np.median(sizes.min(1)))))
    size_note = f"resized to {size}x{size} and {fit} (originals up to {width}x{height}). "
    return size, size, size_note + f"Change with {setting('size')} and {setting('fit')}."


def _decode_arrays(source: ArraySource, settings: DataConfig, quiet: bool) -> DecodedSource:
    """Read arrays; images are resized only if a size is set."""
    blocks = _checked_blocks(source)
    height, width, channels = blocks[0].images.shape[1:]
    labels, classes = _number_labels(blocks, source)
    starts = np.cumsum([0, *(len(block.images) for block in blocks)])
    target = resize_spec(settings, *(settings.width_height or (width, height)))
    flattened = channels == 4 and not target.keep_alpha
    resized = (target.height, target.width) != (height, width) or flattened
    colored_padding = target.fit == "pad" and resized and len(set(target.background)) > 1
    out_channels = 3 if flattened or (channels == 1 and colored_padding) else channels

    def read(rows: NDArray[np.intp]) -> Pixels:
        block = np.searchsorted(starts, rows[0], "right") - 1  # all rows of a split are in one block
        images = as_uint8(blocks[block].images[rows - starts[block]])
        return _resize_images(images, target, out_channels) if resized else images

    def path(row: int) -> str:
        block = int(np.searchsorted(starts, row, "right")) - 1
        return f"{SPLITS[blocks[block].split]}/{row - starts[block]}"

    size_note = f"{width}x{height} (not resized)"
    if resized:
        size_note = f"resized from {width}x{height} to {target.width}x{target.height}"
    return DecodedSource(
        path=path,
        labels=labels,
        classes=classes,
        splits=np.repeat(np.array([block.split for block in blocks], np.int8), np.diff(starts)),
        content=_digest_images(blocks, quiet),
        sizes=np.broadcast_to(np.array([width, height], np.int32), (len(labels), 2)),
        shape=(target.height, target.width, out_channels),
        read=read,
        size_note=size_note,
    )


def _checked_blocks(source: ArraySource) -> list[ArrayBlock]:
    """The blocks of a source that are not empty, with images of one shape."""
    blocks = [block for block in source.read() if len(block.images)]
    if not blocks:
        raise UserError(f"'{source.name}' contains no images; at least 2 are needed.")
    for block in blocks:
        check_pixels(block.images, f"'{source.name}'")
        if block.images.shape[1:] != blocks[0].images.shape[1:]:
            shapes = " and ".join("x".join(map(str, b.images.shape[1:])) for b in (blocks[0], block))
            raise UserError(f"The splits of '{source.name}' differ in image shape: {shapes}.")
    return blocks


def _digest_images(blocks: Sequence[ArrayBlock], quiet: bool) -> NDArray[np.uint64]:
    digests: list[NDArray[np.uint64]] = []
    with progress(sum(len(block.images) for block in blocks), "Reading images", quiet=quiet) as advance:
        for block in blocks:
            for part in slices(len(block.images)):
                images = np.ascontiguousarray(as_uint8(block.images[part]))
                part_digests = [short_digest(hashlib.sha256(image.data).digest()) for image in images]
                digests.append(np.array(part_digests, np.uint64))
                advance(len(images))
    return np.concatenate(digests)


def _resize_images(images: Pixels, target: ResizeSpec, channels: int) -> Pixels:
    def resize_one(image: Pixels) -> bytes:
        opened = Image.fromarray(image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image))
        return to_bytes(resize(to_rgb(opened, target), target), channels)

    with ThreadPoolExecutor(cores()) as threads:
        data = b"".join(threads.map(resize_one, images))
    return np.frombuffer(data, np.uint8).reshape(len(images), target.height, target.width, channels)


def _number_labels(blocks: Sequence[ArrayBlock], source: ArraySource) -> tuple[Labels, tuple[str, ...]]:
    """Convert the labels of all blocks to class numbers; also return the names of the classes."""
    known = [_checked_labels(block, source.name) for block in blocks if block.labels is not None]
    if not known:
        return np.full(sum(len(block.images) for block in blocks), -1, np.int64), ()
    values = np.unique(np.concatenate(known))
    class_numbers = np.arange(len(source.classes))
    if values.dtype.kind in "iu" and np.isin(values, class_numbers).all():
        values, names = class_numbers, source.classes
    else:
        names = tuple(str(value) for value in values.tolist())
    numbered = (np.searchsorted(values, labels) for labels in known)
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
        raise UserError(message, "Give one label per image.")
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubUS":
        raise UserError(f"The labels of '{name}' have dtype {labels.dtype}.", "Use integers or strings.")
    return labels
