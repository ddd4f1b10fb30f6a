"""What each latent does to an image, and how images use the latents."""

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
from vaekit.runs.image_set import batches
from vaekit.runs.inputs import class_numbers, training_pack
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.logging import log, progress

MEAN_SAMPLES = 1000
"""Draws whose mean stands for the mean of a posterior that has none in closed form."""


def posterior_mean(model: VAE, q: Distribution) -> Float[Tensor, "B D"]:
    """The means of q(z | x), of draws where they have no closed form."""
    return q.mean if Capability.MOMENTS in model.posterior.provides else q.sample((MEAN_SAMPLES,)).mean(0)


ENCODED = 2000
"""Images that the use of the latents is measured on, at most."""


FEWEST, FEWEST_OF_CLASS = 100, 20
"""Held-out images below which training images are taken too; and images of a class below which all classes are."""


SPREAD = 2.5
"""Standard deviations to either side that a latent is varied by."""


@dataclass(frozen=True)
class LatentStats:
    """How images use the latents."""

    mean: Float[Tensor, " D"]
    """Of the aggregate posterior, the mean over images of q(z | x)."""
    std: Float[Tensor, " D"]
    """Its standard deviation."""
    activity: Float[Tensor, " D"] | None
    """The standard deviation over images of the mean of q(z | x); None where it was not measured."""


def unit_stats(latents: int) -> LatentStats:
    """The use that the standard normal would make of them."""
    return LatentStats(torch.zeros(latents), torch.ones(latents), None)


def stats_rows(pack: Pack, label: int | None) -> NDArray[np.int64]:
    """Which images of its training data to measure a model on: those of the validation side, with those of the train
    side where they are few; of one class where there are enough of it; ENCODED of them at most, evenly spread."""
    validation = pack.splits["validation"]
    rows = np.arange(validation.start, validation.stop)
    if len(rows) < FEWEST:
        rows = np.concatenate([rows, np.arange(pack.splits["train"].start, pack.splits["train"].stop)])
    if label is not None and np.count_nonzero(pack.labels[rows] == label) >= FEWEST_OF_CLASS:
        rows = rows[pack.labels[rows] == label]
    kept = min(ENCODED, len(rows))
    return np.sort(rows)[np.arange(kept) * len(rows) // kept]


@torch.no_grad()
def measure_latent_stats(
    model: VAE, images: Iterable[Batch], seed: int = 0, advance: Callable[[int], None] = lambda _: None
) -> LatentStats:
    """How the latents of images spread, by the moments of every q(z | x), or else by one draw of it."""
    means, squares, centres = [], [], []
    for index, (x, y) in enumerate(images):
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


def latent_stats(model: LoadedModel, label: int | None, quiet: bool) -> LatentStats:
    """How a model's own images use its latents; without them the standard normal's use, and a line that says so."""
    try:
        pack = training_pack(model, quiet)
    except UserError:
        log.info("The training images are not there as they were: latents vary as under the standard normal instead.")
        return unit_stats(model.vae.latents)
    rows, numbers = stats_rows(pack, label), class_numbers(model, pack)
    with progress(len(rows), "encoding", quiet=quiet) as advance:
        images = batches(pack, rows, numbers, CHUNK, model.device)
        return measure_latent_stats(model.vae, images, advance=advance)


@dataclass(frozen=True, eq=False)
class Traversal:
    """What latents do to a picture: row by row one of them is varied, the others stay at their means."""

    images: UInt8[np.ndarray, "R K H W C"]
    latents: Int64[np.ndarray, " R"]
    """The number of each row's latent, from 1 as in the columns z1, z2 .. of `Trained.latents`."""
    activity: Float[np.ndarray, " R"]
    """The standard deviation over images of the latent's posterior mean; nan where the images are gone."""
    positions: Float[np.ndarray, " K"]
    """Where each column stands: standard deviations of the aggregate posterior from its mean."""

    @property
    def rows(self) -> list[str]:
        """A name for every row."""
        known = (f"\nsd {one:.2f}" if np.isfinite(one) else "" for one in self.activity)
        return [f"z{latent}{more}" for latent, more in zip(self.latents, known, strict=True)]

    @property
    def columns(self) -> list[str]:
        """A name for every column."""
        return ["mean" if abs(place) < 1e-6 else f"{place:+.4g}" for place in self.positions.tolist()]

    @property
    def title(self) -> str:
        """What is to be seen, in two lines."""
        rows = "most active first (sd: of its posterior means over images)"
        rows = rows if np.isfinite(self.activity).all() else "those first that change the picture most"
        scale = "standard deviations of the encoded images" if np.isfinite(self.activity).all() else "unit steps"
        return f"Each row varies one latent, {rows}\nColumns: {scale} from the mean, where all other latents stay"


@torch.no_grad()
def traverse(model: VAE, use: LatentStats, label: int | None, rows: int, columns: int) -> Traversal:
    """Vary `rows` latents, the most active first, over `columns` steps; `label` is the class of a conditional model.

    Where their activity is unknown, those come first that change the picture most.
    """
    rank = _effect(model, use, label) if use.activity is None else use.activity
    order = rank.argsort(descending=True, stable=True)[:rows].tolist()
    positions = torch.linspace(-SPREAD, SPREAD, columns)
    images = [_decoded(model, use, label, latent, positions) for latent in order]
    activity = torch.full((model.latents,), torch.nan) if use.activity is None else use.activity
    return Traversal(
        np.stack([to_uint8(row).numpy() for row in images]),
        np.array(order, np.int64) + 1,
        activity[order].numpy(),
        positions.numpy(),
    )


def _effect(model: VAE, use: LatentStats, label: int | None) -> Float[Tensor, " D"]:
    """How much the picture changes from one end of every latent to the other, in squared pixels."""
    ends = torch.tensor([-SPREAD, SPREAD])
    pairs = (_decoded(model, use, label, latent, ends) for latent in range(model.latents))
    return torch.stack([(low - high).square().sum() for low, high in pairs])


def _decoded(
    model: VAE, use: LatentStats, label: int | None, latent: int, positions: Float[Tensor, " K"]
) -> Float[Tensor, "K C H W"]:
    z = use.mean.repeat(len(positions), 1)
    z[:, latent] += use.std[latent] * positions
    return decode_images(model, z, None if label is None else torch.full((len(z),), label))
