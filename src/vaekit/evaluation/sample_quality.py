"""New images against held-out ones and against their nearest training images."""

from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vaekit.evaluation.context import FEATURE_WORK, Advance, EvalContext
from vaekit.evaluation.features import Extractor
from vaekit.evaluation.fidelity import compare
from vaekit.evaluation.memorization import Nearest, duplicated, nearest
from vaekit.evaluation.results import Fidelity, SetName
from vaekit.latents.fit_prior import encodings
from vaekit.latents.sampling import AnyPrior, decode_images, draw_latents, to_uint8
from vaekit.plots import grids
from vaekit.runs.image_set import ImageSet

MAX_DUPLICATE_FILES = 100
"""Duplicates whose files are named, at most."""
NEAREST_PAIRS = 16
"""New images that are shown with their nearest training image."""
TRAINING_CHUNK = 1024
"""Training images whose distances are computed at a time."""
NewImages = dict[SetName, UInt8[np.ndarray, "N H W C"]]


def new_images(context: EvalContext) -> NewImages:
    """New images, as `generate` draws them (`new`) and, where that is from a fitted prior, from the model's
    own (`model_prior`). A conditional model draws the classes of held-out images."""
    count = context.new_images
    labels = context.held_out.spread(2 * count)[: 2 * count : 2].labels
    vae, fitted = context.model.vae, context.model.fitted_prior
    y = None if labels is None else labels.to(context.model.device)
    priors: dict[SetName, AnyPrior] = {"new": fitted, "model_prior": vae} if fitted else {"new": vae}
    latents = {name: draw_latents(prior, count, context.seed, y) for name, prior in priors.items()}
    return {name: to_uint8(decode_images(vae, z, y)).numpy() for name, z in latents.items()}


def nearest_training_images(
    held_out: ImageSet, training: ImageSet, new: UInt8[np.ndarray, "N H W C"], advance: Advance
) -> tuple[Nearest, Nearest]:
    """The nearest training images of new images, and of as many held-out ones."""
    count = len(new)
    both = np.concatenate([new, held_out.spread(count).pixels])
    starts = range(0, len(training), TRAINING_CHUNK)
    chunks = (_flat(training[start : start + TRAINING_CHUNK].pixels) for start in starts)
    neighbors = nearest(_flat(both), chunks, lambda n: advance(n, "Nearest training images"))
    return neighbors[:count], neighbors[count:]


def _flat(images: UInt8[np.ndarray, "N H W C"]) -> Float[Tensor, "N P"]:
    return torch.from_numpy(images).flatten(1).float() / 255


def duplicate_files(held_out: ImageSet, training: ImageSet, neighbors: Nearest) -> list[tuple[str, str]]:
    """The files of held-out images that are also in the training set, each with that of its duplicate."""
    rows = duplicated(neighbors).nonzero()[:MAX_DUPLICATE_FILES, 0].numpy()
    if not len(rows):
        return []
    held_out_paths, training_paths = held_out.pack.paths(), training.pack.paths()
    held_out_rows = held_out.spread(len(neighbors.row)).rows[rows]
    pairs = zip(held_out_rows, training.rows[neighbors.row.numpy()[rows]], strict=True)
    return [(held_out_paths[row], training_paths[duplicate]) for row, duplicate in pairs]


def nearest_grid(new: UInt8[np.ndarray, "N H W C"], training: ImageSet, neighbors: Nearest) -> Image.Image:
    """The new images that are nearest to a training image, relative to others, each above that image."""
    rows = neighbors.relative.argsort(stable=True)[:NEAREST_PAIRS].numpy()
    training_pixels = training[neighbors.row[rows].numpy()].pixels
    labels = [f"{distance:.1f}" for distance in neighbors.distance[rows].tolist()]
    title = "New images (top) and their nearest training images (bottom); RMS distance of 255"
    return grids.pairs(new[rows], training_pixels, 8, labels, title)


def evaluate_fidelity(
    context: EvalContext, new: NewImages, extractor: Extractor, advance: Advance
) -> Fidelity:
    """Compare sets of images with half of the held-out ones.

    The sets are new images, the other half, that half through the model, and training images.
    """
    count = context.new_images
    both = context.held_out.spread(2 * count)
    held_out, others = (both[start::2] for start in (0, 1))
    sets = new | {"other_held_out": others.pixels, "reconstructed": _through_model(context, others)}
    if context.training is not None and len(context.training) >= count:
        sets["training"] = context.training.spread(count).pixels
    shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(context.seed % 2**63))

    def features(images: UInt8[np.ndarray, "N H W C"]) -> Tensor:
        return extractor(images, lambda n: advance(n * FEATURE_WORK, "Features"))[shuffle]

    real = features(held_out.pixels)
    seen = {name: features(sets[name]) for name in get_args(SetName) if name in sets}
    return Fidelity(
        images=count,
        extractor=extractor.name,
        resize=extractor.resize,
        standard=extractor.standard,
        sets={name: compare(real, images) for name, images in seen.items()},
        fitted_prior_gain=compare(real, seen["new"], seen["model_prior"]) if "model_prior" in seen else None,
    )


@torch.no_grad()
def _through_model(context: EvalContext, images: ImageSet) -> UInt8[np.ndarray, "N H W C"]:
    """One decoded draw of q(z | x) for each image: new images as they would be under a perfect prior."""
    vae = context.model.vae
    z = encodings(vae, images.batches(context.model.device), "through", context.seed).z
    return to_uint8(decode_images(vae, z, images.labels)).numpy()
