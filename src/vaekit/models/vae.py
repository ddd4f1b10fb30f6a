"""The model: encoder, posterior, prior, decoder and likelihood as one module."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.errors import UserError
from vaekit.models.distributions.latents import kl_per_latent, tempered
from vaekit.models.interfaces import (
    Decoder,
    Encoder,
    ImageDistribution,
    Likelihood,
    Posterior,
    Prior,
    location,
)
from vaekit.models.registry import BuildContext
from vaekit.models.single_level import rsample_with_log_prob, single_level_terms
from vaekit.models.terms import Group, Images, Labels, Terms

CONDITION_ROWS = 1024
"""Vectors of conditions of training images that a model holds, to generate images like them."""
DrawPosterior = Callable[[int], tuple[Float[Tensor, "n B D"], Float[Tensor, "n B"]]]


@dataclass(frozen=True)
class LatentSpec:
    """The groups of latents and their shapes."""

    shapes: tuple[tuple[int, ...], ...]
    """Shape of every group for one image: (D,), or (C, h, w) of a latent image."""
    continuous: bool = True
    """Whether latents are real numbers; False for integer codes."""

    @property
    def size(self) -> int:
        """Number of latents in all groups."""
        return sum(map(math.prod, self.shapes))


class VAE(nn.Module):
    """A variational autoencoder made of five components (`builder.py` builds it from a configuration).

    Attributes:
        shape: (C, H, W) of the images.
        latent_shape: (D,), or (c, h, w) of a latent image.
        latents: the number of latents; every z is flat, [..., latents].
        classes: number of classes the model is conditioned on, or of numbers in a vector of conditions; 0 for
            neither.
        vector: whether labels are vectors of conditions.
    """

    condition_rows: Float[Tensor, "R K"]
    """Conditions of training images, in random order."""

    def __init__(
        self,
        encoder: Encoder,
        posterior: Posterior,
        prior: Prior,
        decoder: Decoder,
        likelihood: Likelihood,
        context: BuildContext,
    ) -> None:
        super().__init__()
        self.encoder, self.posterior, self.prior = encoder, posterior, prior
        self.decoder, self.likelihood = decoder, likelihood
        self.shape, self.latent_shape, self.classes = context.shape, context.latents, context.classes
        self.latents, self.vector = context.latent_size, context.vector
        if self.vector:
            self.register_buffer("condition_rows", torch.zeros(CONDITION_ROWS, self.classes))
        # Custom modules may run Python code that changes between calls, which a CUDA graph would skip
        self.graph_safe = not context.modules
        self.precision = torch.float32  # of encoder and decoder; the rest is always in float32
        self.latent_noise = 0.0  # in training, as a share of the latents' standard deviation

    # --- The latent interface: the interface of code outside `models/` ---

    @property
    def latent_spec(self) -> LatentSpec:
        return LatentSpec((self.latent_shape,))

    def posterior_of(self, x: Images, y: Labels | None = None) -> Distribution:
        """q(z | x, y) of images; `y` is used in a conditional model only."""
        return self.encode(self.prepare_target(x), self._condition(y))

    def draw_posterior(self, x: Images, y: Labels | None = None) -> DrawPosterior:
        """A function n -> z [n, B, D] ~ q(z | x, y), log q(z | x) - log p(z) [n, B].

        What depends on `x` alone, images that have passed `prepare_target`, is computed once.
        """
        q, p = self.encode(x, self._condition(y)), self._prior(y)

        def draw(samples: int) -> tuple[Tensor, Tensor]:
            z, log_q = rsample_with_log_prob(q, samples)
            group = Group(z, q, p, log_q)
            return z, group.log_q - group.log_p

        return draw

    def kl_per_latent(self, x: Images, y: Labels | None = None) -> Float[Tensor, "B D"] | None:
        """KL(q || p) of every latent in closed form; None if the KL is not a sum over latents."""
        return kl_per_latent(self.encode(x, self._condition(y)), self._prior(y))

    def sample_prior(self, n: int, y: Labels | None = None, temperature: float = 1.0) -> Float[Tensor, "n D"]:
        """`n` samples of p(z | y), with the standard deviations of the prior multiplied by `temperature`."""
        p = tempered(self._prior(y), temperature)
        return p.sample(() if p.batch_shape else (n,))

    def log_prior(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, " N"]:
        """log p(z | y)."""
        return self._prior(y).log_prob(z)

    def decode(
        self, z: Float[Tensor, "*S B D"], y: Labels | None = None, x: Images | None = None
    ) -> ImageDistribution:
        """p(x | z, y) for every z; in training `x` is passed on, for a scale that follows the data."""
        lead = z.shape[:-1]
        if y is not None and z.ndim > 2:
            y = y.repeat(math.prod(lead[:-1]), *[1] * (y.ndim - 1))
        output = self._network(self.decoder, z.reshape(-1, z.shape[-1]), y)
        return self.likelihood(output.unflatten(0, lead), x)

    def pixel_log_prob(
        self, z: Float[Tensor, "N D"], x: Images, y: Labels | None = None
    ) -> Float[Tensor, "N H W"]:
        """log p(x | z, y) of every pixel over its channels, for images that have passed `prepare_target`.

        Pixels are independent given z: each is an image of one pixel to the likelihood, whatever its kind,
        and the sum over the pixels is log p(x | z, y).
        """
        output = self._network(self.decoder, z, self._condition(y))
        px = self.likelihood(_as_images(output)[None])
        return px.log_prob(_as_images(x))[0].reshape(len(x), *x.shape[-2:])

    def image(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        """The images to show at `z`: the location of p(x | z), or without one its mean clipped to [0, 1]."""
        return location(self.decode(z, self._condition(y)))

    def reconstruct(self, x: Images, y: Labels | None = None) -> Images:
        """The image at the mean of q(z | x), or, for a flow, at the image of its base's mean."""
        return self.image(self.posterior_of(x, y).mean, y)

    def labels_in_turn(self, n: int, grouped: bool = False) -> Labels | None:
        """Labels of `n` images: all classes in turn, or one after the other if `grouped`; of a model with
        conditions those of training images. None for an unconditional model."""
        if not self.classes:
            return None
        numbers = torch.arange(n, device=next(self.parameters()).device)
        if self.vector:
            return self.condition_rows[numbers % len(self.condition_rows)]
        return numbers * self.classes // max(1, n) if grouped else numbers % self.classes

    def _condition(self, y: Labels | None) -> Labels | None:
        return y if self.classes else None

    def _prior(self, y: Labels | None) -> Distribution:
        return self.prior(self.encode, self._condition(y))

    # --- Training ---

    @property
    def supports_accumulation(self) -> bool:
        """Whether a batch may be split into micro-batches."""
        return self.likelihood.supports_accumulation

    def prepare_target(self, x: Images) -> Images:
        """What the likelihood observes of an image: the image itself, or binarized pixels."""
        return self.likelihood.prepare_target(x)

    def encode(self, x: Images, y: Labels | None = None) -> Distribution:
        """q(z | x, y) of images that have passed `prepare_target`, and of a prior's pseudo-inputs."""
        return self.posterior(self._network(self.encoder, x, y))

    def terms(self, x: Images, y: Labels | None = None, samples: int = 1) -> Terms:
        """log p(x | z), and z with its q and p, at `samples` samples of z per image."""
        x = self.prepare_target(x)

        decoded: list[ImageDistribution] = []

        def log_likelihood(z: Tensor) -> Tensor:
            decoded.append(self.decode(self._with_noise(z), y, x))
            return decoded[0].log_prob(x)

        terms = single_level_terms(self.encode, self.prior, log_likelihood, x, y, samples)
        return replace(terms, x=x, px=decoded[0])

    def _with_noise(self, z: Float[Tensor, "S B D"]) -> Float[Tensor, "S B D"]:
        """In training, z with noise of a strength that is drawn for every image: a decoder of such latents
        draws those of a prior better, which are never exactly as those of images (Zheng et al. 2025,
        arXiv:2510.11690, noise-augmented decoding)."""
        if not (self.training and self.latent_noise):
            return z
        strength = torch.rand(*z.shape[:-1], 1, device=z.device) * self.latent_noise
        return z + strength * z.detach().std(correction=0) * torch.randn_like(z)

    def require_support(self, x: Images) -> None:
        """Raise a UserError for pixels outside the support of the likelihood."""
        support = self.likelihood.support
        if not bool(support.check(x).all()):
            expected = "multiples of 1/255 from 0 to 1" if support.is_discrete else "numbers from 0 to 1"
            raise UserError(
                f"Pixel values from {x.min():.3g} to {x.max():.3g} are outside the support of the likelihood "
                f"{type(self.likelihood).__name__}.",
                f"Pass images as uint8, or as {expected}.",
            )

    def _network(self, network: Encoder | Decoder, h: Tensor, y: Labels | None) -> Tensor:
        if self.precision == torch.float32:
            return network(h, y)
        with torch.autocast(h.device.type, dtype=self.precision):
            return network(h, y).float()


def _as_images(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "_ C 1 1"]:
    """Every pixel as an image of one pixel."""
    return x.movedim(1, -1).reshape(-1, x.shape[1], 1, 1)
