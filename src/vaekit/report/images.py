"""The sections of a run's page that show images by its model."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.evaluation.context import QUICK_IMAGES, EvalContext
from vaekit.evaluation.ranking import ranking
from vaekit.latents.arrays import encode_means
from vaekit.latents.sampling import (
    CHUNK,
    AnyPrior,
    decode_images,
    draw_latents,
    interpolate,
    labels_between,
    to_uint8,
)
from vaekit.latents.traverse import traverse_model
from vaekit.models.registry import Capability
from vaekit.plots import curves
from vaekit.plots.labels import file_labels
from vaekit.report.html import Block, Section, tile_columns, tile_table, tiles
from vaekit.runs.conditions import label_names
from vaekit.runs.image_set import ImageSet
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.files import printable

QUICK_SAMPLES = 50
"""Importance samples of each of `QUICK_IMAGES` images, where there is time."""
MIN_QUICK_IMAGES, MIN_QUICK_SAMPLES = 50, 10
MAP_IMAGES = 2000
"""Images on the map of latents, at most."""
NEW_IMAGE_ROWS = 5
"""Rows of new images from the prior that `generate` uses."""
RECONSTRUCTION_ROWS = 2
"""Rows of held-out images with their reconstructions."""
TRAVERSED_LATENTS = 6
"""Rows of the latent traversals."""
TRAVERSAL_STEPS = 9
"""Images of a traversal."""
INTERPOLATIONS = 3
"""Pairs of held-out images with interpolations between them."""
INTERPOLATION_STEPS = 7
"""Images of an interpolation; the two originals are shown as well."""


@dataclass(frozen=True)
class QuickSize:
    """Held-out images, and importance samples of each."""

    images: int
    samples: int


@torch.no_grad()
def new_images(model: LoadedModel) -> Section:
    """New images from the prior that `generate` uses, and a row from the model's where that is another."""
    vae, columns = model.vae, tile_columns(model.shape)
    priors: dict[str, AnyPrior] = {"From the model's prior": vae}
    if model.fitted_prior is not None:
        fitted = f"From the prior fitted to the latents: {model.fitted_prior.name}"
        priors = {fitted: model.fitted_prior, "From the model's prior, for comparison": vae}
    blocks = []
    for number, (caption, prior) in enumerate(priors.items()):
        count = columns * (1 if number else NEW_IMAGE_ROWS)
        y = vae.labels_in_turn(count, grouped=True)
        names = label_names(model, y) or []
        z = draw_latents(prior, count, model.config.training.seed, y)
        blocks.append(tiles([to_uint8(decode_images(vae, z, y)).numpy()], "new image", names, caption))
    return Section("New images", "Generated from random latent vectors.", blocks)


@torch.no_grad()
def reconstructions(context: EvalContext) -> Section:
    model, split = context.model, context.split
    chosen = context.held_out.spread(RECONSTRUCTION_ROWS * tile_columns(model.shape))
    z = encode_means(model.vae, chosen.batches(model.device))
    images = to_uint8(decode_images(model.vae, z, chosen.labels)).numpy()
    blocks = [tiles([chosen.pixels, images], f"{split} image")]
    return Section("Reconstructions", f"Top: {split} images. Bottom: their reconstructions.", blocks)


def traversals(model: LoadedModel, quiet: bool) -> Section:
    result = traverse_model(model, TRAVERSED_LATENTS, TRAVERSAL_STEPS, quiet=quiet)
    text = result.title.replace("\n", ". ") + "."
    if model.columns:
        text += " Conditions: the average of the training images."
    elif model.vae.classes:
        text += f" Class: {model.classes[0]}."
    rows = [name.replace("\n", ", ") for name in result.rows]
    return Section("Latent traversals", text, [tile_table(result.images, rows, result.columns)])


def latent_map(context: EvalContext) -> Section:
    """Posterior means in the plane of their first two principal components, by class."""
    pack, chosen = context.held_out.pack, context.held_out.spread(MAP_IMAGES)
    z = encode_means(context.model.vae, chosen.batches(context.model.device))
    images = f"{len(z):,} {context.split} images"
    text, axes = f"Latent vectors of {images}.", ("z1", "z2")
    if z.shape[1] > 2:
        z, shares = pca(z)
        text = f"PCA of the latent vectors of {images} ({shares[:2].sum().item():.0%} of the variance)."
        axes = ("PC 1", "PC 2")
    points = torch.cat([z, torch.zeros(len(z), 2)], 1)[:, :2].numpy()  # a latent alone lies on a line
    classes = [printable(name) for name in pack.classes]
    labels = np.asarray(pack.labels)[chosen.rows] if classes else None
    graph = curves.scatter(points, labels, classes, axes)
    return Section("Map of the latent space", text, [Block("graphs", [(graph, text)])])


def pca(z: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N K"], Float[Tensor, " K"]]:
    """Principal components of points, K = min(N, D), and the share of the variance along each, descending.

    Principal component analysis: Pearson 1901, doi:10.1080/14786440109462720.
    """
    centred = z - z.mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)  # the sign of a component is arbitrary
    variances = values.square()
    return centred @ directions.T, variances / variances.sum().clamp(min=1e-12)


@torch.no_grad()
def interpolations(context: EvalContext) -> list[Section]:
    """From held-out images to others; both of one class in a conditional model."""
    model, chosen = context.model, _pairs(context.held_out)
    if len(chosen) < 2:
        return []
    z = encode_means(model.vae, chosen.batches(model.device))
    rows = []
    for start in range(0, len(z) - 1, 2):
        path = interpolate(z[start], z[start + 1], INTERPOLATION_STEPS)
        y = chosen.labels
        if y is not None:
            y = labels_between(y[start], y[start + 1], INTERPOLATION_STEPS)
        first, last = chosen.pixels[[start, start + 1]]
        rows.append([first, *to_uint8(decode_images(model.vae, path, y)).numpy(), last])
    shares = [f"{step / (INTERPOLATION_STEPS - 1):.0%}" for step in range(INTERPOLATION_STEPS)]
    table = tile_table(np.array(rows), [""] * len(rows), ["original", *shares, "original"])
    text = "Spherical interpolation between pairs of held-out images; 0% and 100% are their reconstructions."
    return [Section("Interpolations", text, [table])]


def _pairs(images: ImageSet) -> ImageSet:
    """Images two by two; both of one class where a model is conditional and a class has two."""
    if images.labels is None or images.labels.is_floating_point():
        return images.spread(2 * INTERPOLATIONS)
    of_class = [(images.labels == label).nonzero()[:2, 0] for label in images.labels.unique()]
    pairs = [rows.numpy() for rows in of_class if len(rows) == 2]
    count = min(INTERPOLATIONS, len(pairs))
    chosen = np.concatenate([pairs[i * len(pairs) // count] for i in range(count)] or [[]])
    return images[chosen.astype(np.int64)]


@torch.no_grad()
def quick_size(model: LoadedModel, seconds: float) -> QuickSize:
    """How many images and importance samples take `seconds`, by the time of decoding a few."""
    z = torch.zeros(CHUNK, model.vae.latents)
    y = model.vae.labels_in_turn(CHUNK)
    decode_images(model.vae, z, y)
    start = time.perf_counter()
    decode_images(model.vae, z, y)
    draws = CHUNK * seconds / (time.perf_counter() - start)
    samples = int(min(QUICK_SAMPLES, max(MIN_QUICK_SAMPLES, draws / QUICK_IMAGES)))
    return QuickSize(int(min(QUICK_IMAGES, max(MIN_QUICK_IMAGES, draws / samples))), samples)


@torch.no_grad()
def ranked(context: EvalContext, quick: QuickSize) -> list[Section]:
    """Both ends of the held-out images by their likelihood."""
    model, chosen = context.model, context.held_out.spread(quick.images)
    count = min(tile_columns(model.shape), len(chosen) // 2)
    if Capability.DENSITY_AT_SAMPLE not in model.vae.posterior.provides or not count:
        return []
    paths = chosen.pack.paths()
    files = [printable(paths[row]) for row in chosen.rows]
    table = ranking(model, chosen, files, quick.samples, context.seed, lambda _: None)
    blocks = []
    for part, caption in ((table[:count], "Least likely first"), (table[::-1][:count], "Most likely first")):
        values = part["log_likelihood"].map("{:,.0f} nats".format)
        if "bits_per_dimension" in part:
            values = part["bits_per_dimension"].map("{:.3f} bits/dim".format)
        names = file_labels(part["file"].tolist())
        labels = [f"{name}\n{value}" for name, value in zip(names, values, strict=True)]
        blocks.append(tiles([chosen.pixels[part.index.to_numpy()]], "image", labels, caption))
    text = (
        f"Of {len(table):,} {context.split} images, by log p(x) with {quick.samples} importance samples. "
        "Busy images tend to rank as unlikely and plain ones as likely, whatever they show. "
        "`vaekit rank` ranks any folder."
    )
    return [Section("Least and most likely images", text, blocks)]
