"""VAE: encoder, posterior, prior, decoder and likelihood as one module on tensors. It knows parts, not files."""

import math
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaekit.errors import UserError
from vaekit.models.single_level import flat
from vaekit.models.terms import Labels, Terms


@runtime_checkable
class ImageDistribution(Protocol):
    """p(x | z) with batch shape [S, B] and events [C, H, W]."""

    @property
    def mean(self) -> Tensor: ...

    def sample(self) -> Tensor: ...

    def log_prob(self, value: Tensor) -> Tensor: ...


class VAE(nn.Module):
    """A variational autoencoder put together from its parts (`builder.py` does that from a configuration).

    `shape` is (C, H, W) of its images, `latent_shape` (D,), or (C, h, w) where the latents form an image; `latents` is
    the number of them, and every z is flat, [.., latents]. `classes` is the number of labels it is conditioned on, 0
    for none.
    """

    latent_scale: Float[Tensor, "2 C"]

    def __init__(
        self,
        encoder: nn.Module,
        posterior: nn.Module,
        prior: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        shape: tuple[int, int, int],
        latents: tuple[int, ...],
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.posterior, self.prior = encoder, posterior, prior
        self.decoder, self.likelihood = decoder, likelihood
        self.shape, self.latent_shape, self.classes = shape, latents, classes
        self.latents = math.prod(latents)
        if len(latents) == 3:
            # Per channel the mean and the standard deviation of z over the training set, measured when training has
            # ended: what a second model of the latents takes for their units. Until then 0: no standard deviation.
            self.register_buffer("latent_scale", torch.zeros(2, latents[0]))
        self.graph_safe = True
        """Whether a step of it may be recorded and replayed: a user's own modules may have something in Python that
        changes from call to call, of which a replay would know nothing."""
        self.precision = torch.float32
        """Arithmetic inside encoder and decoder; posterior, KL and likelihood are always in float32."""

    def prepare_target(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """What the likelihood sees of an image: the image, or pixels drawn from it."""
        prepare_target = getattr(self.likelihood, "prepare_target", None)
        return x if prepare_target is None else cast(Tensor, prepare_target(x))

    def encode(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Distribution:
        """q(z | x, y)."""
        return cast(Distribution, self.posterior(self._network(self.encoder, x, y)))

    def decode(
        self, z: Float[Tensor, "*S B D"], y: Labels | None = None, x: Float[Tensor, "B C H W"] | None = None
    ) -> ImageDistribution:
        """p(x | z, y) for every z. In training, `x` lets a likelihood whose scale follows the data see them."""
        lead = z.shape[:-1]
        if y is not None and z.ndim > 2:
            y = y.repeat(math.prod(lead[:-1]))
        output = self._network(self.decoder, z.reshape(-1, z.shape[-1]), y)
        return cast(ImageDistribution, self.likelihood(output.unflatten(0, lead), x))

    def terms(self, x: Float[Tensor, "B C H W"], y: Labels | None = None, samples: int = 1) -> Terms:
        """log p(x | z), and z with its q and p, at `samples` draws of z per image."""
        x = self.prepare_target(x)

        def score(z: Tensor) -> Tensor:
            return self.decode(z, y, x).log_prob(x)

        return flat(self.encode, self.prior, score, x, y, samples)

    def reconstruct(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Float[Tensor, "B C H W"]:
        """The location of p(x | z) at the mean of q(z | x), or at the centre of a flow."""
        return self.image(self.encode(self.prepare_target(x), y).mean, y)

    def image(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        """The images to show at `z`: the location of p(x | z), or its mean, clipped to [0, 1], where it has none."""
        px = self.decode(z, y)
        return cast(Tensor, px.location) if hasattr(px, "location") else px.mean.clamp(0, 1)

    def require_support(self, x: Float[Tensor, "B C H W"]) -> None:
        """Refuse images that the likelihood gives no probability (for the Bernoulli: anything outside [0, 1])."""
        support = cast(constraints.Constraint, self.likelihood.support)
        if not bool(support.check(x).all()):
            wanted = "a level k / 255" if support.is_discrete else "from 0 to 1"
            raise UserError(
                f"Pixels from {x.min():.3g} to {x.max():.3g} are outside the support of the likelihood, "
                f"{type(self.likelihood).__name__}: give images as uint8, or as numbers each {wanted}."
            )

    def _network(self, network: nn.Module, h: Tensor, y: Tensor | None) -> Tensor:
        if self.precision == torch.float32:
            return cast(Tensor, network(h, y))
        with torch.autocast(h.device.type, dtype=self.precision):
            return cast(Tensor, network(h, y)).float()
