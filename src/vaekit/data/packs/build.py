"""From a source to a pack: choose a size, decode, decide the sides, write."""

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
from vaekit.data.decoding.pool import cores, job, work
from vaekit.data.decoding.worker import digest
from vaekit.data.packs.write import DecodedSource, count_reasons, require_space_for, write
from vaekit.data.sources.arrays import ArrayBlock, ArraySource, Pixels, as_uint8, check_pixels, slices
from vaekit.data.sources.folder import NO_CLASS, FolderSource
from vaekit.data.splits import SPLITS
from vaekit.errors import UserError
from vaekit.utils.logging import progress

SMALL, MEDIUM = 128, 64
"""Images of one size with sides up to SMALL pixels stay as they are; others become squares of up to MEDIUM."""


def build(found: FolderSource | ArraySource, settings: DataConfig, folder: Path, quiet: bool) -> None:
    """Read all of `found` and write its pack into the empty `folder`.

    Raises:
        UserError: fewer than 2 images are usable, the disk is too full, or the sides cannot be had.
    """
    staging = folder / "staging"
    rows = (
        from_folder(found, settings, staging, quiet)
        if isinstance(found, FolderSource)
        else from_arrays(found, settings, quiet)
    )
    if len(rows.labels) < 2:
        because = f" ({len(rows.skipped):,} skipped: {count_reasons(rows.skipped)})" if rows.skipped else ""
        few = f"{found.name}: {len(rows.labels)} usable images{because}"
        raise UserError(f"{few} but at least 2 are needed, so add some.")
    write(folder, rows, found.name, settings)
    staging.unlink(missing_ok=True)


def resize_spec(settings: DataConfig, width: int, height: int) -> ResizeSpec:
    red, green, blue = ImageColor.getrgb(settings.background)[:3]
    return ResizeSpec(width, height, settings.fit, (red, green, blue), settings.alpha == "keep")


# --- A folder --------------------------------------------------------------------------------------------------------


def from_folder(found: FolderSource, settings: DataConfig, staging: Path, quiet: bool) -> DecodedSource:
    """Decode the files of a folder into the file `staging`."""
    count, root = len(found.files), str(found.root)
    width, height, size_note = _choose(found, settings, quiet)
    target = resize_spec(settings, width, height)
    channels = 4 if target.keep_alpha else 3  # what the images have is known when all are decoded
    require_space_for(staging.parent, count, 2 * height * width * channels)
    with staging.open("wb") as file:
        file.truncate(count * height * width * channels)
    sizes, content = np.zeros((count, 2), np.int32), np.zeros(count, np.uint64)
    gray, alpha, usable = (np.zeros(count, np.bool_) for _ in range(3))
    skipped = list(found.skipped)
    with progress(count, f"Packing {found.name}", quiet=quiet) as advance:
        for index, answer in work(job(root, str(staging), target, channels), found.files):
            if isinstance(answer, str):
                skipped.append((found.files[index], answer))
            else:
                sizes[index] = answer[:2]
                gray[index], alpha[index], content[index] = answer[2:]
                usable[index] = True
            advance(1)
    kept = np.flatnonzero(usable)
    classes, labels = _seen(found.classes, found.labels[kept])
    channels_kept = 1 if gray[kept].all() else 4 if alpha[kept].any() else 3
    stage = np.memmap(staging, np.uint8, "r", shape=(count, height, width, channels))
    return DecodedSource(
        path=lambda index: found.files[kept[index]],
        labels=labels,
        classes=classes,
        given=found.splits[kept],
        content=content[kept],
        sizes=sizes[kept],
        shape=(height, width, channels_kept),
        read=lambda rows: stage[kept[rows]][..., :channels_kept],
        size_note=size_note,
        skipped=sorted(skipped),
        other_files=found.other_files,
    )


def _seen(classes: tuple[str, ...], labels: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes that have an image, and the labels as their numbers; a folder of broken files is no class."""
    present, numbers = np.unique(labels, return_inverse=True)
    names = tuple(classes[label] for label in present) if classes else ()
    if not names or names == (NO_CLASS,):
        return (), np.full(len(labels), -1, np.int64)
    return names, numbers.astype(np.int64)


def _choose(found: FolderSource, settings: DataConfig, quiet: bool) -> tuple[int, int, str]:
    """Width and height for the images of a folder, and a sentence about them; read from their headers if not given."""
    if settings.width_height is not None:
        width, height = settings.width_height
        return width, height, f"{width}x{height} ({_fitting(settings)})"
    seen: list[list[int]] = []
    with progress(len(found.files), f"Measuring {found.name}", quiet=quiet) as advance:
        for _, answer in work(job(str(found.root)), found.files):
            if answer and not isinstance(answer, str):
                seen.append(answer)
            advance(1)
    if not seen:
        return MEDIUM, MEDIUM, ""
    sizes = np.array(seen)
    (left, low), (right, high) = sizes.min(0).tolist(), sizes.max(0).tolist()
    if (left, low) == (right, high) and max(right, high) <= SMALL:
        return right, high, f"{right}x{high}, as they are"
    side = max(1, min(MEDIUM, int(np.median(sizes.min(1)))))
    spread = f"{right}x{high}" if (left, low) == (right, high) else f"{left} to {right} wide, {low} to {high} high"
    return side, side, f"{side}x{side} from {spread} ({_fitting(settings)}; --size changes it)"


def _fitting(settings: DataConfig) -> str:
    return {"crop": "centre crop", "pad": "padded", "stretch": "stretched"}[settings.fit]


# --- Arrays ----------------------------------------------------------------------------------------------------------


def from_arrays(found: ArraySource, settings: DataConfig, quiet: bool) -> DecodedSource:
    """Read arrays; they keep their size unless another is asked for."""
    blocks = [block for block in found.read() if len(block.images)]
    if not blocks:
        raise UserError(f"{found.name} holds no images: at least 2 are needed.")
    height, width, channels = blocks[0].images.shape[1:]
    for block in blocks:
        check_pixels(block.images, found.name)
        if block.images.shape[1:] != (height, width, channels):
            one, two = ("x".join(map(str, each.images.shape[1:])) for each in (blocks[0], block))
            raise UserError(f"The sides of {found.name} differ in shape ({one}, {two}): make them equal.")
    labels, classes = _number(blocks, found)
    starts = np.cumsum([0, *(len(block.images) for block in blocks)])
    target = resize_spec(settings, *(settings.width_height or (width, height)))
    flattened = channels == 4 and not target.keep_alpha
    remade = (target.height, target.width) != (height, width) or flattened
    coloured_edge = target.fit == "pad" and remade and len(set(target.background)) > 1
    kept = 3 if flattened or (channels == 1 and coloured_edge) else channels
    content = np.zeros(starts[-1], np.uint64)
    with progress(int(starts[-1]), f"Reading {found.name}", quiet=quiet) as advance:
        for block, start in zip(blocks, starts, strict=False):
            for part in slices(len(block.images)):
                images = np.ascontiguousarray(as_uint8(block.images[part]))
                hashes = [digest(hashlib.sha256(image.data).digest()) for image in images]
                content[start + part.start : start + part.stop] = hashes
                advance(len(images))

    def read(rows: NDArray[np.intp]) -> Pixels:
        which = np.searchsorted(starts, rows, "right") - 1
        got = [as_uint8(blocks[b].images[rows[which == b] - starts[b]]) for b in np.unique(which)]
        images = np.concatenate(got)  # rows ascend within a side, so blocks come in order
        return _remake(images, target, kept) if remade else images

    def path(row: int) -> str:
        block = int(np.searchsorted(starts, row, "right")) - 1
        return f"{SPLITS[blocks[block].split]}/{row - starts[block]}"

    total = int(starts[-1])
    return DecodedSource(
        path=path,
        labels=labels,
        classes=classes,
        given=np.repeat(np.array([block.split for block in blocks], np.int8), np.diff(starts)),
        content=content,
        sizes=np.broadcast_to(np.array([width, height], np.int32), (total, 2)),
        shape=(target.height, target.width, kept),
        read=read,
        size_note=f"{target.width}x{target.height}" + (f" from {width}x{height}" if remade else ", as they are"),
        skipped=[],
        other_files=0,
    )


def _remake(images: Pixels, target: ResizeSpec, channels: int) -> Pixels:
    def one(image: Pixels) -> bytes:
        opened = Image.fromarray(image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image))
        return to_bytes(resize(to_rgb(opened, target), target), channels)

    with ThreadPoolExecutor(cores()) as threads:
        data = b"".join(threads.map(one, images))
    return np.frombuffer(data, np.uint8).reshape(len(images), target.height, target.width, channels)


def _number(blocks: Sequence[ArrayBlock], found: ArraySource) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels as given -> numbers of classes, and the classes' names."""
    counts = [len(block.images) for block in blocks]
    given = [None if block.labels is None else _one_each(block, found.name) for block in blocks]
    known = [labels for labels in given if labels is not None]
    if not known:
        return np.full(sum(counts), -1, np.int64), ()
    values = np.unique(np.concatenate(known))
    if found.classes and values.dtype.kind in "iu" and values.min() >= 0 and values.max() < len(found.classes):
        values, names = np.arange(len(found.classes)), found.classes
    else:
        names = tuple(str(value) for value in values.tolist())
    rest = len(names)
    numbers = [
        np.full(count, rest, np.int64) if labels is None else np.searchsorted(values, labels).astype(np.int64)
        for count, labels in zip(counts, given, strict=True)
    ]
    return np.concatenate(numbers), names if len(known) == len(given) else (*names, NO_CLASS)


def _one_each(block: ArrayBlock, name: str) -> NDArray[Any]:
    labels = np.asarray(block.labels)
    labels = labels.reshape(len(labels)) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (len(block.images),):
        shape = " x ".join(map(str, labels.shape))
        raise UserError(f"{name} has {len(block.images)} images but labels of shape {shape}: give one label an image.")
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iubUS":
        raise UserError(f"The labels of {name} are {labels.dtype}: give whole numbers or names.")
    return labels
