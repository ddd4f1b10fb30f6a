"""Masks among the images of a data set, by their pixels."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import NDArray

from vaekit.errors import setting

FLAT, SECOND = 0.85, 0.02
"""Share of the pixels that two levels have in a mask, at least, and the second of them alone."""
OTHERS = 0.5
"""Median of that share, at most, of images that masks are among."""
DARK = 16
"""Level below which all pixels of a folder of masks may be."""
FOLDER_SHARE, MIN_MASKS = 0.9, 3
"""Share of the images of a folder that look like masks, where those of others do not, and their number, from
which on it is said."""
MOST_COLOURS, FEW = 6, 0.9
"""Colours that have this share of the pixels of a mask in colours, at least."""
FLAT_PAIRS = 0.6
"""Share of neighbouring pixels that are equal in one, at least."""
PAIRED = (0.3, 0.7)
"""Share of masks in a folder where about every image has one."""
MAX_PATTERNS = 3
GRAY = "gray, with few levels or nearly black"
"""Why images are taken for masks that are not in colours."""


def two_levels(images: UInt8[np.ndarray, "N H W C"]) -> Float32[np.ndarray, " N"]:
    """The share of pixels with one of the two most frequent levels, in steps of 4; 0 of images of one level,
    and -1 of those in colour."""
    gray = (images[..., :1] == images[..., :3]).all((1, 2, 3))
    pixels = images[..., 0].reshape(len(images), -1)
    counts = np.stack([np.bincount(row, minlength=64) for row in pixels // 4])
    top = np.sort(counts, axis=1)[:, -2:] / pixels.shape[1]
    return np.where(gray, np.where(top[:, 0] >= SECOND, top.sum(1), 0), -1).astype(np.float32)


def few_colours(images: UInt8[np.ndarray, "N H W C"]) -> Float32[np.ndarray, " N"]:
    """The share of pixels with one of the `MOST_COLOURS` most frequent colours, in steps of 16 levels; 0 of
    images that have one colour, are not flat, or not RGB or RGBA."""
    if images.shape[3] not in (3, 4):
        return np.zeros(len(images), np.float32)
    flat = (images[:, :, 1:, :3] == images[:, :, :-1, :3]).all(3).mean((1, 2)) >= FLAT_PAIRS
    steps = (images[..., :3] >> 4).astype(np.int16).reshape(len(images), -1, 3)
    colours = steps[..., 0] * 256 + steps[..., 1] * 16 + steps[..., 2]
    counts = np.stack([np.bincount(row, minlength=4096) for row in colours])
    top = np.partition(counts, [-MOST_COLOURS, -2], axis=1)[:, -MOST_COLOURS:] / colours.shape[1]
    return np.where(flat & (top[:, -2] >= SECOND), top.sum(1), 0).astype(np.float32)


def mask_notes(
    path: Callable[[int], str],
    used: Int64[np.ndarray, " M"],
    shares: Float32[np.ndarray, " N"],
    colours: Float32[np.ndarray, " N"],
    brightest: UInt8[np.ndarray, " N"],
) -> list[str]:
    """What is said of images that look like masks: those of whole folders, or else some between others.

    Args:
        path: the path of an image by its number.
        used: the numbers of the images that are read.
        shares: of all images, see `two_levels`.
        colours: of all images, see `few_colours`.
        brightest: the highest level of each.
    """
    folders: dict[str, list[int]] = {}
    for row in used.tolist():
        folders.setdefault(path(row).rpartition("/")[0], []).append(row)
    flat = shares >= FLAT
    several = {name: rows for name, rows in folders.items() if name and len(rows) >= MIN_MASKS}
    suspects = sorted(
        name
        for name, rows in several.items()
        if flat[rows].mean() >= FOLDER_SHARE
        or (int(brightest[rows].max()) < DARK and bool((shares[rows] >= 0).all()))
    )
    others = [row for name, rows in folders.items() if name not in suspects for row in rows]
    if suspects and others and flat[others].mean() <= 1 - FOLDER_SHARE:
        return [_note_of_folders(suspects, folders, GRAY)]
    if suspects:
        return []
    return _notes_of_colours(path, several, colours >= FEW) or _notes_of_some(path, used, flat, shares)


def _notes_of_colours(
    path: Callable[[int], str], folders: dict[str, list[int]], flat: NDArray[np.bool_]
) -> list[str]:
    """That the images of some folders have a few flat colours, and the file names of images in others, which
    have more."""
    suspects = [name for name, rows in folders.items() if flat[rows].mean() >= FOLDER_SHARE]
    others = [row for name, rows in folders.items() if name not in suspects for row in rows]
    if not suspects or not others or flat[others].mean() > 1 - FOLDER_SHARE:
        return []
    stems = {PurePosixPath(path(row)).stem for row in others}
    masks = [row for name in suspects for row in folders[name]]
    if sum(PurePosixPath(path(row)).stem in stems for row in masks) < FOLDER_SHARE * len(masks):
        return []
    return [_note_of_folders(suspects, folders, "of a few flat colours, with names of others")]


def _notes_of_some(
    path: Callable[[int], str],
    used: NDArray[np.int64],
    flat: NDArray[np.bool_],
    shares: NDArray[np.float32],
) -> list[str]:
    """That some images look like masks, where others do not at all: about one for every image, or those of
    one kind of name."""
    masks, others = used[flat[used]], used[~flat[used]]
    if len(masks) < MIN_MASKS or not len(others) or np.median(shares[others]) > OTHERS:
        return []
    names = [path(int(row)) for row in masks]
    patterns = _patterns(names, [path(int(row)) for row in others])
    share = len(masks) / len(used)
    if not patterns and not PAIRED[0] <= share <= PAIRED[1]:
        return []
    return [_note(f"{len(masks):,} images, such as {names[0]},", patterns, GRAY)]


def _note_of_folders(names: Sequence[str], folders: dict[str, list[int]], why: str) -> str:
    count = sum(len(folders[name]) for name in names)
    listed = ", ".join(f"{name}/" for name in names[:MAX_PATTERNS])
    listed += ", ..." if len(names) > MAX_PATTERNS else ""
    return _note(f"{count:,} images in {listed}", [f"{name}/*" for name in names], why)


def _note(images: str, patterns: Sequence[str], why: str) -> str:
    text = f"{images} look like masks: {why}."
    if not patterns:
        return f"{text} To leave them out, move them elsewhere, or name them in {setting('exclude')}."
    return f"{text} To leave them out: {setting('exclude', ','.join(patterns[:MAX_PATTERNS]))}."


def _patterns(masks: Sequence[str], others: Sequence[str]) -> list[str]:
    """Patterns of paths that nearly all masks have and no other image has; empty if there are none."""
    counts = Counter(re.sub(r"\d+", "*", name) for name in masks)
    patterns = [
        pattern
        for pattern, _ in counts.most_common(MAX_PATTERNS)
        if not any(fnmatch(name, pattern) for name in others)
    ]
    matched = sum(counts[pattern] for pattern in patterns)
    return patterns if matched >= FOLDER_SHARE * len(masks) else []
