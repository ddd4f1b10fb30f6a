"""Images out of a latent space."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.terms import Labels
from vaekit.models.vae import VAE
from vaekit.utils.device import fork_rng
from vaekit.utils.random import derive_seed

CHUNK = 64
"""Images drawn from one seed. Always drawn whole, so that image i is the same however many are asked for."""


@contextmanager
def seeded(*words: int | str) -> Iterator[None]:
    """Random numbers inside the block depend on `words` alone; those outside are as if it had not been."""
    with fork_rng():
        torch.manual_seed(derive_seed(*words))
        yield


@torch.no_grad()
def draw_latents(
    prior: VAE | FittedPrior, n: int, seed: int, y: Labels | None = None, temperature: float = 1.0
) -> Float[Tensor, "n D"]:
    """`n` draws of p(z | y), from a model's own prior or from one fitted to its latents, on the device of
    that prior.

    Args:
        prior: what to draw from.
        n: number of draws. The same seed gives the same draws, and more of them as `n` grows.
        seed: random seed.
        y: labels [n]; without them a fitted prior draws classes too.
        temperature: scale of the prior's noise; below 1: more typical, less varied.
    """
    chunks = list(_draw_chunks(prior, n, seed, y, temperature))
    return torch.cat(chunks)[:n] if chunks else torch.zeros(0, prior.latents)


def _draw_chunks(
    prior: VAE | FittedPrior, n: int, seed: int, y: Labels | None, temperature: float
) -> Iterator[Float[Tensor, "CHUNK D"]]:
    for first in range(0, n, CHUNK):
        labels = None if y is None else F.pad(y[first : first + CHUNK], (0, max(0, first + CHUNK - n)))
        with seeded(seed, "generate", first):
            yield prior.sample_prior(CHUNK, labels, temperature)


@torch.no_grad()
def generate_images(
    model: VAE,
    prior: VAE | FittedPrior,
    n: int,
    seed: int,
    y: Labels | None = None,
    prior_y: Labels | None = None,
    temperature: float = 1.0,
) -> Iterator[UInt8[Tensor, "m H W C"]]:
    """`n` new images, a chunk at a time: memory does not grow with `n`.

    Args:
        model: what decodes them.
        prior: what latents are drawn from, as for `draw_latents`.
        n: number of images.
        seed: random seed.
        y: labels [n] for the decoder of a conditional model.
        prior_y: labels [n] for the prior; by default those of the decoder.
        temperature: scale of the prior's noise.
    """
    drawn = _draw_chunks(prior, n, seed, y if prior_y is None else prior_y, temperature)
    for first, z in zip(range(0, n, CHUNK), drawn, strict=True):
        labels = None if y is None else y[first : first + CHUNK]
        yield to_uint8(model.image(z[: n - first], labels))


@torch.no_grad()
def decode_images(model: VAE, z: Float[Tensor, "n D"], y: Labels | None = None) -> Float[Tensor, "n C H W"]:
    """The images to show at every z, a chunk at a time, on the device of the model."""
    device = next(model.parameters()).device
    labels = [None] * len(z) if y is None else list(y.to(device).split(CHUNK))
    parts = zip(z.to(device).split(CHUNK), labels, strict=False)
    return torch.cat([model.image(part, label) for part, label in parts])


def interpolate(
    a: Float[Tensor, " D"], b: Float[Tensor, " D"], steps: int, spherical: bool = True
) -> Float[Tensor, "steps D"]:
    """`steps` latents from `a` to `b`, both among them, evenly spaced.

    Along a straight line, or, spherical, along the great circle (slerp: Shoemake 1985, "Animating rotation
    with quaternion curves"): the direction turns by equal angles and the length changes by equal amounts. A
    straight line between two draws of a wide normal passes nearer to the origin than any draw lies (White
    2016, arXiv:1609.04468). Where a great circle is not determined, as between opposite points or where one
    has no length, the line is straight.
    """
    t = torch.linspace(0, 1, steps, dtype=torch.float64, device=a.device)[:, None]
    one, other = a.double(), b.double()
    path = (1 - t) * one + t * other
    lengths = torch.stack([one.norm(), other.norm()])
    if spherical and lengths.min() > 1e-6:
        u, v = one / lengths[0], other / lengths[1]
        angle = 2 * torch.atan2(
            (u - v).norm(), (u + v).norm()
        )  # exact also where the two are nearly parallel
        if angle.sin() > 1e-4:
            direction = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
            path = ((1 - t) * lengths[0] + t * lengths[1]) * direction
    path = path.to(a)
    path[0], path[-1] = a, b
    return path


def to_uint8(x: Float[Tensor, "n C H W"]) -> Tensor:
    """Images [n, C, H, W] in [0, 1] as uint8 [n, H, W, C] on the processor, rounded to the nearest level."""
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
