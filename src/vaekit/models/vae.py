"""VAE: encoder, posterior, prior, decoder and likelihood as one module on tensors. It knows components, not files."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.errors import UserError
from vaekit.models.distributions.latents import tempered
from vaekit.models.interfaces import Decoder, Encoder, ImageDistribution, Likelihood, Posterior, Prior
from vaekit.models.registry import BuildContext
from vaekit.models.single_level import rsample_with_log_prob, single_level_terms
from vaekit.models.terms import Group, Labels, Terms

DrawPosterior = Callable[[int], tuple[Float[Tensor, "n B D"], Float[Tensor, "n B"]]]


@dataclass(frozen=True)
class LatentSpec:
    """What latents look like."""

    shapes: tuple[tuple[int, ...], ...]
    """Of every group the shape for one image: (D,), or (C, h, w) of a spatial latent."""
    continuous: bool = True
    """Real numbers; False: codes, whole numbers."""

    @property
    def size(self) -> int:
        """Latents in all groups."""
        return sum(map(math.prod, self.shapes))


class VAE(nn.Module):
    """A variational autoencoder put together from its components (`builder.py` does that from a configuration).

    `shape` is (C, H, W) of its images, `latent_shape` (D,), or (C, h, w) where the latents form an image; `latents` is
    the number of them, and every z is flat, [.., latents]. `classes` is the number of labels it is conditioned on, 0
    for none.
    """

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
        self.latents = context.latent_size
        self.graph_safe = not context.modules
        """Whether a step of it may be recorded and replayed: a user's own modules may have something in Python that
        changes from call to call, of which a replay would know nothing."""
        self.precision = torch.float32
        """Arithmetic inside encoder and decoder; posterior, KL and likelihood are always in float32."""

    # --- The latent interface: all that code outside `models/` knows of latents ---

    @property
    def latent_spec(self) -> LatentSpec:
        """The groups of latents, and their shapes."""
        return LatentSpec((self.latent_shape,))

    def posterior_of(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Distribution:
        """q(z | x, y) of images; `y` counts in a conditional model only."""
        return self.encode(self.prepare_target(x), self._condition(y))

    def draw_posterior(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> DrawPosterior:
        """A function that draws n samples of q(z | x, y) for every image: z [n, B, D], and log q(z | x) - log p(z) of
        each, [n, B]. `x` is what `prepare_target` gave. What depends on x alone is computed once."""
        q, p = self.encode(x, self._condition(y)), self.prior(self.encode, self._condition(y))

        def draw(samples: int) -> tuple[Tensor, Tensor]:
            z, log_q = rsample_with_log_prob(q, samples)
            group = Group(z, q, p, log_q)
            return z, group.log_q - group.log_p

        return draw

    def kl_per_latent(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Float[Tensor, "B D"] | None:
        """KL(q || p) of every latent in closed form; None where it is not known to be a sum over latents."""
        q = self.encode(x, self._condition(y))
        kl: Tensor | None = Group(q.mean[None], q, self.prior(self.encode, self._condition(y))).kl_per_latent
        return kl

    def sample_prior(self, n: int, y: Labels | None = None, temperature: float = 1.0) -> Float[Tensor, "n D"]:
        """`n` draws of p(z | y), the noise of the prior scaled by `temperature`."""
        p = tempered(self.prior(self.encode, self._condition(y)), temperature)
        return p.sample(() if p.batch_shape else (n,))

    def log_prior(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, " N"]:
        """log p(z | y)."""
        log_p: Tensor = self.prior(self.encode, self._condition(y)).log_prob(z)
        return log_p

    def decode(
        self, z: Float[Tensor, "*S B D"], y: Labels | None = None, x: Float[Tensor, "B C H W"] | None = None
    ) -> ImageDistribution:
        """p(x | z, y) for every z. In training, `x` lets a likelihood whose scale follows the data see them."""
        lead = z.shape[:-1]
        if y is not None and z.ndim > 2:
            y = y.repeat(math.prod(lead[:-1]))
        output = self._network(self.decoder, z.reshape(-1, z.shape[-1]), y)
        px: ImageDistribution = self.likelihood(output.unflatten(0, lead), x)
        return px

    def image(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        """The images to show at `z`: the location of p(x | z), or its mean, clipped to [0, 1], where it has none."""
        px = self.decode(z, self._condition(y))
        return cast(Tensor, px.location) if hasattr(px, "location") else px.mean.clamp(0, 1)

    def reconstruct(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Float[Tensor, "B C H W"]:
        """The location of p(x | z) at the mean of q(z | x), or at the centre of a flow."""
        return self.image(self.posterior_of(x, y).mean, y)

    def _condition(self, y: Labels | None) -> Labels | None:
        """Labels, where the model is conditioned on them."""
        return y if self.classes else None

    # --- Training ---

    def prepare_target(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """What the likelihood sees of an image: the image, or pixels drawn from it."""
        return self.likelihood.prepare_target(x)

    def encode(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Distribution:
        """q(z | x, y) of images that are prepared already, and of a prior's pseudo-inputs."""
        q: Distribution = self.posterior(self._network(self.encoder, x, y))
        return q

    def terms(self, x: Float[Tensor, "B C H W"], y: Labels | None = None, samples: int = 1) -> Terms:
        """log p(x | z), and z with its q and p, at `samples` draws of z per image."""
        x = self.prepare_target(x)

        def log_likelihood(z: Tensor) -> Tensor:
            return self.decode(z, y, x).log_prob(x)

        return single_level_terms(self.encode, self.prior, log_likelihood, x, y, samples)

    def require_support(self, x: Float[Tensor, "B C H W"]) -> None:
        """Refuse images that the likelihood gives no probability (for the Bernoulli: anything outside [0, 1])."""
        support = self.likelihood.support
        if not bool(support.check(x).all()):
            expected = "a level k / 255" if support.is_discrete else "from 0 to 1"
            raise UserError(
                f"Pixels from {x.min():.3g} to {x.max():.3g} are outside the support of the likelihood, "
                f"{type(self.likelihood).__name__}: give images as uint8, or as numbers each {expected}."
            )

    def _network(self, network: Encoder | Decoder, h: Tensor, y: Labels | None) -> Tensor:
        if self.precision == torch.float32:
            return cast(Tensor, network(h, y))
        with torch.autocast(h.device.type, dtype=self.precision):
            return cast(Tensor, network(h, y)).float()
