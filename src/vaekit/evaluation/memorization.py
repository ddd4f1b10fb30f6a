"""Whether new images are copies of training images, by comparison with held-out images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from vaekit.evaluation.context import Advance
from vaekit.evaluation.results import Memorization
from vaekit.plots import grids
from vaekit.runs.image_set import ImageSet

NEIGHBOR_COUNT = 50
"""Nearest training images whose mean distance a distance is relative to."""
DUPLICATE_DISTANCE = 2.0
"""Root mean square, in levels of 255, within which two images are the same but for compression."""
DUPLICATE_RELATIVE_DISTANCE = 0.2
"""Relative distance of duplicates, as a second condition: plain images may all be near each other."""
COPY_QUANTILE = 0.01
"""Share of held-out images whose nearest training image counts as suspiciously near."""
MIN_IMAGES_FOR_COPIES = 20
"""Held-out images below which that says nothing; with fewer than 100, the nearest one takes its place."""
MAX_DUPLICATE_FILES = 100
"""Duplicates whose files are named, at most."""
NEAREST_PAIRS = 16
"""New images that are shown with their nearest training image."""
TRAINING_CHUNK = 1024
"""Training images whose distances are computed at a time."""


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each of N images. Distances are root mean squares, in levels of 255."""

    row: Int[Tensor, " N"]
    distance: Float[Tensor, " N"]
    relative: Float[Tensor, " N"]
    """Divided by the mean distance to the nearest 50.

    A copy is far nearer than all others; an image that is merely plain is near to many (Carlini et al. 2023,
    arXiv:2301.13188, section 4.2).
    """

    def __getitem__(self, rows: slice) -> "Nearest":
        return Nearest(self.row[rows], self.distance[rows], self.relative[rows])


def nearest(
    images: Float[Tensor, "N P"],
    training: Iterable[Float[Tensor, "B P"]],
    advance: Callable[[int], None] = lambda _: None,
) -> Nearest:
    """The nearest training images, which come in parts and in order, by their pixels from 0 to 1."""
    best = images.new_full((len(images), 0), 0.0)
    rows = torch.zeros(len(images), 0, dtype=torch.long)
    squares, start = images.square().sum(1, keepdim=True), 0
    for part in training:
        squared_distances = (squares + part.square().sum(1) - 2 * images @ part.T).clamp(min=0)
        best, order = torch.cat([best, squared_distances], 1).topk(
            min(NEIGHBOR_COUNT, best.shape[1] + len(part)), dim=1, largest=False, sorted=True
        )
        numbers = torch.arange(start, start + len(part)).expand(len(images), -1)
        rows = torch.cat([rows, numbers], 1).gather(1, order)
        start += len(part)
        advance(len(part))
    distance = 255 * (best / images.shape[1]).sqrt()
    return Nearest(rows[:, 0], distance[:, 0], distance[:, 0] / distance.mean(1).clamp(min=1e-9))


def memorization(
    new: Nearest, held_out: Nearest, duplicate_files: Sequence[tuple[str, str]] = ()
) -> Memorization:
    """Shares of copies and duplicates, and median distances.

    `copied` is the share of new images nearer to their training image, relative to its fifty nearest, than
    all but the nearest hundredth of held-out images, or than all of fewer than 100. `copied_expected` is
    expected of a model that copies nothing; `copied_by_chance` is exceeded by chance once in forty times. All
    are None where held-out images are too few. `duplicates` is the share of held-out images that are also in
    the training set.
    """
    from scipy.stats import betabinom

    count = len(held_out.relative)
    # one image more is nearer than the rank-th with chance rank / (N + 1)
    rank = max(1, round(COPY_QUANTILE * (count + 1)))
    copied = (new.relative < held_out.relative.sort().values[rank - 1]).double().mean().item()
    by_chance = betabinom.ppf(0.975, len(new.relative), rank, count + 1 - rank) / len(new.relative)
    enough = count >= MIN_IMAGES_FOR_COPIES
    return Memorization(
        images=count,
        nearest_to_new=new.distance.median().item(),
        nearest_to_held_out=held_out.distance.median().item(),
        copied=copied if enough else None,
        copied_expected=rank / (count + 1) if enough else None,
        copied_by_chance=float(by_chance) if enough else None,
        duplicates=_duplicated(held_out).double().mean().item(),
        duplicate_files=list(duplicate_files),
    )


def _duplicated(neighbors: Nearest) -> Bool[Tensor, " N"]:
    """Which images are the same as their nearest training image, within two levels."""
    return (neighbors.distance < DUPLICATE_DISTANCE) & (neighbors.relative < DUPLICATE_RELATIVE_DISTANCE)


def evaluate_memorization(
    held_out: ImageSet, training: ImageSet, new: UInt8[np.ndarray, "N H W C"], advance: Advance
) -> tuple[Memorization, Image.Image]:
    """Compare new images, and as many held-out ones if there are, with training images; and a picture of the
    nearest."""
    count = len(new)
    both = np.concatenate([new, held_out.spread(count).pixels])
    starts = range(0, len(training), TRAINING_CHUNK)
    chunks = (_flat(training[start : start + TRAINING_CHUNK].pixels) for start in starts)
    neighbors = nearest(_flat(both), chunks, lambda n: advance(n, "Nearest training images"))
    of_new, of_held_out = neighbors[:count], neighbors[count:]
    duplicates = _duplicate_files(held_out, training, of_held_out)
    return memorization(of_new, of_held_out, duplicates), _nearest_grid(new, training, of_new)


def _flat(images: UInt8[np.ndarray, "N H W C"]) -> Float[Tensor, "N P"]:
    return torch.from_numpy(images).flatten(1).float() / 255


def _duplicate_files(held_out: ImageSet, training: ImageSet, neighbors: Nearest) -> list[tuple[str, str]]:
    """The files of held-out images that are also in the training set, each with that of its duplicate."""
    rows = _duplicated(neighbors).nonzero()[:MAX_DUPLICATE_FILES, 0].numpy()
    if not len(rows):
        return []
    held_out_paths, training_paths = held_out.pack.paths(), training.pack.paths()
    held_out_rows = held_out.spread(len(neighbors.row)).rows[rows]
    pairs = zip(held_out_rows, training.rows[neighbors.row.numpy()[rows]], strict=True)
    return [(held_out_paths[row], training_paths[duplicate]) for row, duplicate in pairs]


def _nearest_grid(new: UInt8[np.ndarray, "N H W C"], training: ImageSet, neighbors: Nearest) -> Image.Image:
    """The new images that are nearest to a training image, relative to others, each above that image."""
    rows = neighbors.relative.argsort(stable=True)[:NEAREST_PAIRS].numpy()
    training_pixels = training[neighbors.row[rows].numpy()].pixels
    labels = [f"{distance:.1f}" for distance in neighbors.distance[rows].tolist()]
    title = "New images (top) and their nearest training images (bottom); RMS distance of 255"
    return grids.grid(new[rows], 8, labels, title, [training_pixels])
