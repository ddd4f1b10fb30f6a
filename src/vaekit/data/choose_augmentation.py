"""Flips and shifts for a small folder, chosen by its images.

Mirror images help where an image could as well have been the other way round, and harm where it could not:
text, hands, profiles that all look one way. If mirrored images are as likely as the originals, nothing tells
the two apart. So a linear discriminant is trained to do that, and flips are chosen if it fails on images that
it has not seen.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

MIN_IMAGES, MAX_IMAGES = 30, 1000
"""Images of a folder for which flips and shifts are chosen: fewer cannot tell, and more need them less."""
MIN_IMAGES_TO_FLIP = 100
"""With fewer, hands that all show to one side could be taken for chance."""
MAX_SIDE = 64
"""Side of the images that the discriminant sees, at most."""
MAP_SIDE = 8
"""Side of the thumbnails among its features."""
FILTERS = 48
"""Random filters whose mean responses are features, at each of two sizes."""
FOLDS = 10
RIDGE = 0.3
"""Added to the variances of the features, which are 1."""
MAX_ACCURACY = 0.62
"""Accuracy of the discriminant, plus its standard error, from which images are not flipped: 0.5 is chance."""
FLAT_LEVELS = 12
"""Range of the levels of a flat border, at most."""
FLAT_SHARE = 0.9
"""Share of the images that must have a flat border for shifts."""


@dataclass(frozen=True)
class Augmentation:
    """What was chosen, as settings."""

    flip: bool
    crop: int


def choose_augmentation(images: UInt8[np.ndarray, "N H W C"]) -> Augmentation:
    """Flips where mirror images cannot be told from originals, and shifts by 1/32 of the side where the
    borders are flat, so that a shifted image looks like one of the folder."""
    if not MIN_IMAGES <= len(images) <= MAX_IMAGES:
        return Augmentation(flip=False, crop=0)
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    enough = len(x) >= MIN_IMAGES_TO_FLIP
    flip = enough and mirror_accuracy(x) + (0.25 / len(x)) ** 0.5 < MAX_ACCURACY
    crop = max(1, min(x.shape[2:]) // 32)
    return Augmentation(flip, crop if _flat_share(images, crop + 1) >= FLAT_SHARE else 0)


def mirror_accuracy(x: Float[Tensor, "N C H W"]) -> float:
    """How often a linear discriminant tells an image from its mirror image, by cross-validation.

    A feature is the difference between image and mirror image in a thumbnail's pixel, or in the mean response
    to a random filter, so that it changes its sign from one to the other. The discriminant's direction is the
    mean of the features, whitened, and its threshold is 0 (Fisher 1936,
    doi:10.1111/j.1469-1809.1936.tb02137.x).
    """
    features = _odd_features(x)
    features = features / features.square().mean(0).sqrt().clamp(min=1e-6)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    right = 0
    for held_out in order.chunk(FOLDS):
        rest = torch.ones(len(x), dtype=torch.bool)
        rest[held_out] = False
        some = features[rest]
        covariance = some.T @ some / len(some)
        covariance.diagonal().add_(RIDGE)
        direction = torch.linalg.solve(covariance, some.mean(0))
        right += int((features[held_out] @ direction > 0).sum())
    return right / len(x)


def _odd_features(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
    """Features that change their sign where images are mirrored."""
    scale = min(1.0, MAX_SIDE / max(x.shape[2:]))
    if scale < 1:
        size = [max(MAP_SIDE, round(length * scale)) for length in x.shape[2:]]
        x = F.interpolate(x, size=size, mode="area")
    mirrored = x.flip(3)
    half = MAP_SIDE // 2
    thumbnails = (F.adaptive_avg_pool2d(images, MAP_SIDE)[..., :half].flatten(1) for images in (x, mirrored))
    odd = [next(thumbnails) - next(thumbnails)]
    filters = torch.randn(FILTERS, x.shape[1], 5, 5, generator=torch.Generator().manual_seed(0))
    filters -= filters.mean((1, 2, 3), keepdim=True)
    filters /= filters.flatten(1).norm(dim=1)[:, None, None, None]
    for images in (x, F.avg_pool2d(x, 2)):
        responses = (F.conv2d(same, filters).relu().mean((2, 3)) for same in (images, images.flip(3)))
        odd.append(next(responses) - next(responses))
    return torch.cat(odd, 1)


def _flat_share(images: UInt8[np.ndarray, "N H W C"], width: int) -> float:
    """The share of the images with a border of so many pixels of about the same colour."""
    n, channels = len(images), images.shape[3]
    edges = [*range(width), *range(-width, 0)]
    rows = images[:, edges].reshape(n, -1, channels)
    columns = images[:, :, edges].reshape(n, -1, channels)
    border = np.concatenate([rows, columns], 1).astype(int)
    return float(((border.max(1) - border.min(1)).max(1) <= FLAT_LEVELS).mean())
