"""Sampling, decoding and interpolation of latents."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.terms import Labels
from vaekit.models.vae import VAE
from vaekit.utils.device import fork_rng
from vaekit.utils.random import derive_seed

AnyPrior = VAE | FittedPrior | FlowMatching
CHUNK = 64
"""Images drawn from one seed. Always drawn whole, so that image i does not depend on the number of images."""


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed the random numbers inside the block by `parts`, without effect on those outside. No other thread
    draws any meanwhile, so that the block has no `yield`."""
    with fork_rng():
        torch.manual_seed(derive_seed(*parts))
        yield


def draw_latents(prior: AnyPrior, n: int, seed: int, y: Labels | None = None) -> Float[Tensor, "n D"]:
    """Draw from p(z | y) on the device of `prior`: the model, or a prior fitted to its latents.

    A larger `n` appends to the same draws. Without labels `y` [n] or conditions [n, K], a fitted prior also
    draws the class.
    """
    chunks = list(draw_chunks(prior, n, seed, y))
    return torch.cat(chunks)[:n] if chunks else torch.zeros(0, prior.latents)


@torch.no_grad()
def draw_chunks(
    prior: AnyPrior, n: int, seed: int, y: Labels | None, temperature: float = 1.0, start: int = 0
) -> Iterator[Float[Tensor, "CHUNK D"]]:
    """Iterate over the draws of `draw_latents` from `start`, a multiple of CHUNK, the last chunk full too;
    `temperature` scales their noise."""
    for first in range(start, n, CHUNK):
        labels = None if y is None else y[first : first + CHUNK]
        if labels is not None and len(labels) < CHUNK:
            labels = torch.cat([labels, labels.new_zeros(CHUNK - len(labels), *labels.shape[1:])])
        with seeded(seed, "generate", first):
            z = prior.sample_prior(CHUNK, labels, temperature)
        yield z


def draw_like(z: Float[Tensor, "N D"], n: int) -> Float[Tensor, "n D"]:
    """Draw from the Gaussian with the mean and covariance of `z`, as random sums of its deviations."""
    mean = z.mean(0)
    return mean + torch.randn(n, len(z), device=z.device) @ (z - mean) / math.sqrt(len(z))


@torch.no_grad()
def decode_images(model: VAE, z: Float[Tensor, "n D"], y: Labels | None = None) -> Float[Tensor, "n C H W"]:
    """Decode latents in chunks, on the device of the model."""
    device = next(model.parameters()).device
    labels = [None] * len(z) if y is None else list(y.to(device).split(CHUNK))
    parts = zip(z.to(device).split(CHUNK), labels, strict=False)
    return torch.cat([model.image(part, label) for part, label in parts])


def interpolate(
    a: Float[Tensor, " D"], b: Float[Tensor, " D"], steps: int, spherical: bool = True
) -> Float[Tensor, "steps D"]:
    """Interpolate from `a` to `b`, both included, along a straight line or a great circle.

    Spherical interpolation (slerp: Shoemake 1985, "Animating rotation with quaternion curves") changes
    direction and length by equal amounts, since a straight line between two draws of a wide normal passes
    nearer to the origin than any draw (White 2016, arXiv:1609.04468). Without a unique great circle it is
    linear.
    """
    t = torch.linspace(0, 1, steps, dtype=torch.float64, device=a.device)[:, None]
    start, end = a.double(), b.double()
    path = (1 - t) * start + t * end
    lengths = torch.stack([start.norm(), end.norm()])
    if spherical and lengths.min() > 1e-6:
        u, v = start / lengths[0], end / lengths[1]
        angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())  # accurate for nearly parallel vectors too
        if angle.sin() > 1e-4:
            direction = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
            path = ((1 - t) * lengths[0] + t * lengths[1]) * direction
    path = path.to(a)
    path[0], path[-1] = a, b
    return path


def labels_between(a: Tensor, b: Tensor, steps: int) -> Labels:
    """Labels of interpolations: the class of both ends, or conditions from those of one to those of the
    other."""
    if not a.is_floating_point():
        return a.expand(steps)
    return torch.lerp(a, b, torch.linspace(0, 1, steps, device=a.device)[:, None])


def to_uint8(x: Float[Tensor, "n C H W"]) -> Tensor:
    """Convert images [n, C, H, W] in [0, 1] to uint8 [n, H, W, C] on the CPU, rounded to nearest."""
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
