"""Images out of a latent space."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vaekit.data.loader import Batch
from vaekit.models.distributions.latents import tempered
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.single_level import draw
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
    model: VAE,
    n: int,
    seed: int,
    y: Labels | None = None,
    temperature: float = 1.0,
    fitted: FittedPrior | None = None,
) -> Float[Tensor, "n D"]:
    """`n` draws of p(z | y): from the fitted prior where one is given, else from the model's own, its noise scaled by
    `temperature` (below 1: more typical, less varied). Without `y` a fitted prior draws classes too."""
    chunks = []
    for first in range(0, n, CHUNK):
        labels = None if y is None else F.pad(y[first : first + CHUNK], (0, max(0, first + CHUNK - n)))
        with seeded(seed, "generate", first):
            if fitted is None:
                p = model.prior(model.encode, labels)
            else:
                p = fitted(fitted.classes(CHUNK) if labels is None else labels)
            p = tempered(p, temperature)
            chunks.append(p.sample(() if p.batch_shape else (CHUNK,)))
    return torch.cat(chunks)[:n] if chunks else torch.zeros(0, model.latents)


@torch.no_grad()
def decode_images(model: VAE, z: Float[Tensor, "n D"], y: Labels | None = None) -> Float[Tensor, "n C H W"]:
    """The images to show at every z, a chunk at a time."""
    labels = [None] * len(z) if y is None else list(y.split(CHUNK))
    return torch.cat([model.image(part, label) for part, label in zip(z.split(CHUNK), labels, strict=False)])


@torch.no_grad()
def latent_scale(model: VAE, batches: Iterable[Batch], seed: int) -> Float[Tensor, "2 c"]:
    """Mean and standard deviation of every channel of a latent image (c, h, w), over images and over one draw of
    q(z | x) for each."""
    sums = torch.zeros(3, model.latent_shape[0], dtype=torch.float64)
    with seeded(seed, "latent scale"):
        for x, y in batches:
            z, _ = draw(model.encode(model.prepare_target(x), y if model.classes else None), 1)
            values = z.unflatten(-1, model.latent_shape).transpose(0, 2).flatten(1).cpu().double()
            sums += torch.stack([torch.ones_like(values), values, values.square()]).sum(2)
    mean, square = sums[1:] / sums[0]
    return torch.stack([mean, (square - mean.square()).clamp(min=0).sqrt()]).float()


def interpolate(
    a: Float[Tensor, " D"], b: Float[Tensor, " D"], steps: int, spherical: bool = True
) -> Float[Tensor, "steps D"]:
    """`steps` latents from `a` to `b`, both among them, evenly spaced.

    Along a straight line, or, spherical, along the great circle (slerp: Shoemake 1985, "Animating rotation with
    quaternion curves"): the direction turns by equal angles and the length changes by equal amounts. A straight line
    between two draws of a wide normal passes nearer to the origin than any draw lies (White 2016, arXiv:1609.04468).
    Where a great circle is not determined, as between opposite points or where one has no length, the line is straight.
    """
    t = torch.linspace(0, 1, steps, dtype=torch.float64, device=a.device)[:, None]
    one, other = a.double(), b.double()
    path = (1 - t) * one + t * other
    lengths = torch.stack([one.norm(), other.norm()])
    if spherical and lengths.min() > 1e-6:
        u, v = one / lengths[0], other / lengths[1]
        angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())  # exact also where the two are nearly parallel
        if angle.sin() > 1e-4:
            direction = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
            path = ((1 - t) * lengths[0] + t * lengths[1]) * direction
    path = path.to(a)
    path[0], path[-1] = a, b
    return path


def to_uint8(x: Float[Tensor, "n C H W"]) -> Tensor:
    """Images [n, C, H, W] in [0, 1] as uint8 [n, H, W, C] on the processor, rounded to the nearest level."""
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
