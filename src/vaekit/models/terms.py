"""What objectives see: latent groups and the terms of a bound, in nats per image.

S is samples of z per image, B images, D latent dimensions, C, H, W channels, height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from vaekit.config.base import BaseConfig
from vaekit.models.distributions.latents import Gaussian, kl_per_latent, map_parameters
from vaekit.models.registry import BuildContext, Requirements

Images = Float[Tensor, "B C H W"]
Labels = Int[Tensor, " B"] | Float[Tensor, "B _"]
"""Numbers of classes [B], or vectors of conditions [B, K]."""
Encode = Callable[[Tensor, Tensor | None], Distribution]
"""(images [B, C, H, W], labels [B] or [B, K], or None) -> q(z | x, y)."""


class _CachedProperty:
    """functools.cached_property without its lock, at which torch.compile breaks the graph (Python 3.11)."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function, self.name, self.__doc__ = function, function.__name__, function.__doc__

    def __get__(self, owner: Any, _: type | None = None) -> Any:
        if owner is None:
            return self
        value = owner.__dict__[self.name] = self.function(owner)
        return value


@dataclass(frozen=True)
class Group:
    """One group of latents; densities are computed at first access."""

    z: Float[Tensor, "S B *D"]
    q: Distribution
    p: Distribution
    log_q_of_sample: Float[Tensor, "S B"] | None = None
    """log q(z | x) if sampling returned it, so that a flow need not be inverted."""

    @_CachedProperty
    def log_q(self) -> Float[Tensor, "S B"]:
        return self.q.log_prob(self.z) if self.log_q_of_sample is None else self.log_q_of_sample

    @_CachedProperty
    def log_q_detached(self) -> Float[Tensor, "S B"]:
        """log q(z | x) with its parameters detached: its gradient reaches the encoder through z alone."""
        return map_parameters(cast(Gaussian, self.q), Tensor.detach).log_prob(self.z)

    @_CachedProperty
    def log_p(self) -> Float[Tensor, "S B"]:
        return self.p.log_prob(self.z)

    @_CachedProperty
    def kl_per_latent(self) -> Float[Tensor, "B D"] | None:
        """KL(q || p) of every latent in closed form; None where it does not factorize."""
        return kl_per_latent(self.q, self.p)

    @_CachedProperty
    def kl(self) -> Float[Tensor, " B"] | Float[Tensor, "S B"]:
        """KL(q || p): [B] in closed form where there is one, else log q - log p at the samples [S, B]."""
        if self.kl_per_latent is not None:
            return self.kl_per_latent.sum(-1)
        try:
            return kl_divergence(self.q, self.p)
        except NotImplementedError:
            return self.log_q - self.log_p


@dataclass(frozen=True)
class Terms:
    """Everything that an objective sees of a model."""

    log_px: Float[Tensor, "S B"]
    groups: tuple[Group, ...]
    y: Labels | None = None
    """The labels of a conditional model."""
    x: Images | None = None
    """The images, as the likelihood observes them."""
    px: Any = None
    """p(x | z) at the samples, an `ImageDistribution` of batch shape [S, B]."""


class Objective:
    """A function of the terms: a scalar to minimize, and named values to log, all in nats per image.

    Args:
        context: only `images`, the number of training images, is used.
    """

    settings: BaseConfig
    requires: Requirements
    """What the components have to provide."""
    schedule_end: float = 0.0
    """The epoch from which all schedules have their final value."""
    supports_accumulation: bool = True
    """Whether its value for a batch is the mean of its values for equal parts of it."""

    def __init__(self, settings: BaseConfig, context: BuildContext = BuildContext()) -> None:
        self.settings, self.images = settings, context.images
        self.samples: int = getattr(settings, "samples", 1)
        """Samples of z per image in training."""

    def __call__(self, terms: Terms, epoch: float = float("inf")) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss. `epoch` is the number of epochs trained so far, with fractions; by default
        schedules have their final values."""
        raise NotImplementedError
