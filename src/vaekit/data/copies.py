"""Copies among images: equal files, nearly equal pictures, and pictures that look alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Pixels = NDArray[np.uint8]
SIZE = 8
"""Pixels on a side of the thumbnails that are compared."""
NEAR_LEVELS = 2
"""Levels by which the thumbnails of nearly equal pictures differ, at most, everywhere."""
NEIGHBOURS = 4
"""Nearest thumbnails that each is compared with."""
HASH_PARTS, HASH_BITS = 4, 3
"""A hash of 64 bits is looked up by 4 parts, which finds all that differ in up to 3 bits."""
ALIKE_LEVELS, ALIKE_CONTRAST = 5.0, 0.3
"""Mean difference between the thumbnails of pictures that look alike, at most: in levels, and as a share of
the mean deviation of one of them from its mean, since small drawings on white differ by little."""
FLAT_LEVELS = 4.0
"""Standard deviation, in levels, of pictures that are too flat to have a hash."""
MAX_BUCKET = 64
"""Pictures of one part of a hash that are compared, at most."""
BLANK_LEVELS = 2
"""Levels between the darkest and the brightest pixel of a blank picture, at most."""


def thumbnails(images: Pixels) -> NDArray[np.float32]:
    """Thumbnails [N, SIZE, SIZE, C] of images [N, H, W, C]: means over equal areas, edges included."""
    n, height, width, channels = images.shape
    rows, columns = _areas(height), _areas(width)
    half = np.einsum("sh,nhwc->nswc", rows, images.astype(np.float32), optimize=True)
    thumbs = np.einsum("tw,nswc->nstc", columns, half, optimize=True)
    return np.asarray(thumbs.reshape(n, SIZE, SIZE, channels), np.float32)


def _areas(size: int) -> NDArray[np.float32]:
    """[SIZE, size] weights of the pixels of a side in each of SIZE equal parts."""
    edges = np.linspace(0, size, SIZE + 1)
    pixels = np.arange(size)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(shared.clip(0) * (SIZE / size), np.float32)


def near_copies(thumbs: NDArray[np.float32]) -> NDArray[np.int64]:
    """The number of the first picture that each is nearly equal to, directly or by others in between."""
    flat = thumbs.reshape(len(thumbs), -1)
    first = np.arange(len(flat))
    rounded, index, inverse = np.unique(
        np.rint(flat).astype(np.uint8), axis=0, return_index=True, return_inverse=True
    )
    inverse = inverse.reshape(-1)
    coarse = (
        rounded.reshape(-1, SIZE // 2, 2, SIZE // 2, 2, thumbs.shape[3])
        .mean((2, 4))
        .reshape(len(rounded), -1)
    )
    count = min(NEIGHBOURS + 1, len(rounded))
    _, neighbours = cKDTree(coarse).query(
        coarse, k=np.arange(1, count + 1), p=np.inf, distance_upper_bound=NEAR_LEVELS + 1e-3
    )
    parent = np.arange(len(rounded))
    for one, others in enumerate(neighbours.tolist()):
        for other in others:
            if other != one and other < len(rounded):
                apart = np.abs(rounded[one].astype(np.int16) - rounded[other])
                if apart.max() <= NEAR_LEVELS:
                    _join(parent, one, other)
    roots = np.array([_root(parent, one) for one in range(len(rounded))], np.int64)
    earliest = np.full(len(rounded), len(flat))
    np.minimum.at(earliest, roots, index)
    return np.asarray(np.minimum(first, earliest[roots[inverse]]), np.int64)


def _root(parent: NDArray[np.int64], one: int) -> int:
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = int(parent[one])
    return one


def _join(parent: NDArray[np.int64], one: int, other: int) -> None:
    one, other = _root(parent, one), _root(parent, other)
    parent[max(one, other)] = min(one, other)


@dataclass(frozen=True)
class Alike:
    """Held-out pictures that look like training pictures."""

    share: float
    """Share of the held-out pictures."""
    pairs: list[tuple[int, int]]
    """Numbers of a held-out picture and of the training picture, the most alike first."""


def alike(thumbs: NDArray[np.float32], held_out: NDArray[np.int64], train: NDArray[np.int64]) -> Alike:
    """Find held-out pictures that look like a training picture, by difference hashes and thumbnails.

    The hash has a bit for every pair of neighbours in a thumbnail, by which of them is brighter. Hashes that
    differ in at most `HASH_BITS` bits agree in one of `HASH_PARTS` parts, which are looked up (Norouzi,
    Punjani & Fleet 2012, "Fast search in Hamming space with multi-index hashing"); then the thumbnails are
    compared.
    """
    gray = thumbs.mean(3)
    hashes = _hashes(gray)
    flat = gray.std((1, 2)) < FLAT_LEVELS
    buckets: dict[tuple[int, int], list[int]] = {}
    parts = hashes.view(np.uint16).reshape(-1, HASH_PARTS)
    for row in train[~flat[train]].tolist():
        for part in range(HASH_PARTS):
            bucket = buckets.setdefault((part, int(parts[row, part])), [])
            if len(bucket) < MAX_BUCKET:
                bucket.append(row)
    contrast = np.abs(thumbs - thumbs.mean((1, 2, 3), keepdims=True)).mean((1, 2, 3))
    pairs: list[tuple[float, int, int]] = []
    candidates = held_out[~flat[held_out]]
    for row in candidates.tolist():
        near = {one for part in range(HASH_PARTS) for one in buckets.get((part, int(parts[row, part])), ())}
        rows = np.fromiter(near, np.int64, len(near))
        rows = rows[np.bitwise_count(hashes[rows] ^ hashes[row]) <= HASH_BITS]
        if len(rows):
            apart = np.abs(thumbs[rows] - thumbs[row]).mean((1, 2, 3))
            if apart.min() <= min(ALIKE_LEVELS, ALIKE_CONTRAST * contrast[row]):
                pairs.append((float(apart.min()), row, int(rows[apart.argmin()])))
    return Alike(len(pairs) / max(1, len(held_out)), [(one, other) for _, one, other in sorted(pairs)])


def _hashes(gray: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A hash of 64 bits of each thumbnail [N, SIZE, SIZE]: each pixel against the next in its row."""
    brighter = gray > np.roll(gray, -1, axis=2)
    packed = np.packbits(brighter.reshape(len(gray), -1), axis=1)
    return np.ascontiguousarray(packed).view(np.uint64).reshape(-1)


def is_blank(images: Pixels) -> NDArray[np.bool_]:
    """Whether each image is of one colour, or nearly."""
    flat = images.reshape(len(images), -1, images.shape[3]).astype(np.int16)
    return np.asarray((flat.max(1) - flat.min(1)).max(1) <= BLANK_LEVELS)
