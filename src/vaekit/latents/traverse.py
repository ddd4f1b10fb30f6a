"""Traversals: the effect of each latent on an image, over the range that images use."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from vaekit.data.loader import Batch
from vaekit.data.packs.pack import Pack
from vaekit.errors import UserError
from vaekit.latents.sampling import CHUNK, decode_images, seeded, to_uint8
from vaekit.models.registry import Capability
from vaekit.models.single_level import rsample_with_log_prob
from vaekit.models.vae import VAE
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import class_index, class_numbers, training_pack
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.logging import console_logging, log, progress

MEAN_SAMPLES = 1000
"""Draws that estimate the mean of a posterior whose mean has no closed form."""
STATS_IMAGES = 2000
"""Images that latents are measured on, at most."""
MIN_VALIDATION_IMAGES = 100
"""With fewer validation images, training images are used as well."""
MIN_CLASS_IMAGES = 20
"""With fewer images of the class, those of all classes are used."""
SPREAD = 2.5
"""Standard deviations to either side that a latent is varied by."""
MAX_TRAVERSED = 100
"""Rows and columns of a traversal, at most."""


# --- How images use the latents
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LatentStats:
    """How images use the latents."""

    mean: Float[Tensor, " D"]
    """Of the aggregate posterior, the average over images of q(z | x)."""
    std: Float[Tensor, " D"]
    """Of the aggregate posterior."""
    activity: Float[Tensor, " D"] | None
    """The standard deviation over images of the mean of q(z | x); None if it was not measured."""


def posterior_mean(model: VAE, q: Distribution) -> Float[Tensor, "B D"]:
    """The means of q(z | x), estimated by draws if they have no closed form."""
    return q.mean if Capability.MOMENTS in model.posterior.provides else q.sample((MEAN_SAMPLES,)).mean(0)


def latent_stats(model: LoadedModel, label: int | None, quiet: bool) -> LatentStats:
    """Measure how a model's own images use its latents; without these images assume the standard normal, and
    say so."""
    try:
        pack = training_pack(model, quiet)
    except UserError:
        log.info(
            "The training images have moved or changed: using a standard normal for means and deviations."
        )
        return LatentStats(torch.zeros(model.vae.latents), torch.ones(model.vae.latents), None)
    images = ImageSet(pack, stats_rows(pack, label), class_numbers(model, pack))
    with progress(len(images), "Encoding", quiet=quiet) as advance:
        return measure_latent_stats(model.vae, images.batches(model.device, CHUNK), advance=advance)


def stats_rows(pack: Pack, label: int | None) -> NDArray[np.int64]:
    """The images to measure: those of the validation split, with the training split where they are few; of
    one class where it has enough; at most STATS_IMAGES, evenly spread."""
    validation, train = pack.splits["validation"], pack.splits["train"]
    rows = np.arange(validation.start, validation.stop)
    if len(rows) < MIN_VALIDATION_IMAGES:
        rows = np.concatenate([rows, np.arange(train.start, train.stop)])
    if label is not None and np.count_nonzero(pack.labels[rows] == label) >= MIN_CLASS_IMAGES:
        rows = rows[pack.labels[rows] == label]
    count = min(STATS_IMAGES, len(rows))
    return np.sort(rows)[np.arange(count) * len(rows) // count]


@torch.no_grad()
def measure_latent_stats(
    model: VAE, batches: Iterable[Batch], seed: int = 0, advance: Callable[[int], None] = lambda _: None
) -> LatentStats:
    """Moments of the aggregate posterior, from those of every q(z | x) or from one draw of it."""
    means, squares, centres = [], [], []
    for index, (x, y) in enumerate(batches):
        with seeded(seed, "use", index):
            q = model.posterior_of(x, y)
            centres.append(posterior_mean(model, q).double().cpu())
            if Capability.MOMENTS in model.posterior.provides:
                mean, variance = q.mean.double().cpu(), q.variance.double().cpu()
            else:
                mean = rsample_with_log_prob(q, 1)[0][0].double().cpu()
                variance = torch.zeros_like(mean)
        means.append(mean)
        squares.append(variance + mean.square())
        advance(len(x))
    mean, square = torch.cat(means).mean(0), torch.cat(squares).mean(0)
    std = (square - mean.square()).clamp(min=0).sqrt()
    return LatentStats(mean.float(), std.float(), torch.cat(centres).std(0, correction=0).float())


# --- Traversals
# ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Traversal:
    """Images in which one latent per row is varied and the others stay at their means."""

    images: UInt8[np.ndarray, "R K H W C"]
    latents: Int64[np.ndarray, " R"]
    """The latent of each row, from 1 as in the columns z1, z2, ... of `TrainedModel.latents`."""
    activity: Float[np.ndarray, " R"]
    """The standard deviation over images of the latent's posterior mean; nan without the training images."""
    positions: Float[np.ndarray, " K"]
    """Of each column: standard deviations of the aggregate posterior from its mean."""

    @property
    def measured(self) -> bool:
        """Whether the training images were there to measure the latents on."""
        return bool(np.isfinite(self.activity).all())

    @property
    def rows(self) -> list[str]:
        """A name for every row."""
        known = (f"\nsd {one:.2f}" if np.isfinite(one) else "" for one in self.activity)
        return [f"z{latent}{text}" for latent, text in zip(self.latents, known, strict=True)]

    @property
    def columns(self) -> list[str]:
        """A name for every column."""
        return [
            "mean" if abs(position) < 1e-6 else f"{position:+.4g}" for position in self.positions.tolist()
        ]

    @property
    def title(self) -> str:
        """What the rows and columns are, in two lines."""
        order = "most active first (sd: of its posterior means over images)"
        order = order if self.measured else "those first that change the image most"
        unit = "standard deviations of the encoded images" if self.measured else "unit steps"
        columns = f"Columns: {unit} from the mean; all other latents stay there"
        return f"Each row varies one latent, {order}\n{columns}"


def traverse_model(
    model: LoadedModel, rows: int, columns: int, label: str | int | None = None, quiet: bool = False
) -> Traversal:
    """Traverse the latents of a trained model: see `TrainedModel.traverse`."""
    for name, number, least in (("rows", rows, 1), ("columns", columns, 2)):
        if not least <= number <= MAX_TRAVERSED:
            raise UserError(f"must be from {least} to {MAX_TRAVERSED} (got {number}).", option=name)
    if label is not None and not model.vae.classes:
        raise UserError(f"This model is not conditional and takes no class (got {label!r}).", option="label")
    index = class_index(label if label is not None else 0, model.classes) if model.vae.classes else None
    with console_logging(quiet):
        return traverse(model.vae, latent_stats(model, index, quiet), index, rows, columns)


@torch.no_grad()
def traverse(model: VAE, stats: LatentStats, label: int | None, rows: int, columns: int) -> Traversal:
    """Vary `rows` latents, the most active first, over `columns` steps; `label` is the class of a conditional
    model.

    Without a measured activity, latents that change the image most come first.
    """
    importance = _effect(model, stats, label) if stats.activity is None else stats.activity
    order = importance.argsort(descending=True, stable=True)[:rows].tolist()
    positions = torch.linspace(-SPREAD, SPREAD, columns)
    images = [_decode(model, stats, label, latent, positions) for latent in order]
    activity = torch.full((model.latents,), torch.nan) if stats.activity is None else stats.activity
    return Traversal(
        np.stack([to_uint8(row).numpy() for row in images]),
        np.array(order, np.int64) + 1,
        activity[order].numpy(),
        positions.numpy(),
    )


def _effect(model: VAE, stats: LatentStats, label: int | None) -> Float[Tensor, " D"]:
    """How much the image changes from one end of every latent to the other, in squared pixels."""
    ends = torch.tensor([-SPREAD, SPREAD])
    pairs = (_decode(model, stats, label, latent, ends) for latent in range(model.latents))
    return torch.stack([(low - high).square().sum() for low, high in pairs])


def _decode(
    model: VAE, stats: LatentStats, label: int | None, latent: int, positions: Float[Tensor, " K"]
) -> Float[Tensor, "K C H W"]:
    z = stats.mean.repeat(len(positions), 1)
    z[:, latent] += stats.std[latent] * positions
    return decode_images(model, z, None if label is None else torch.full((len(z),), label))
