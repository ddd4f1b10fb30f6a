"""Distributions of latents. Arguments are never validated: a check makes the CPU wait for the device."""

import math
import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Size, Tensor
from torch.distributions import Categorical, Distribution, MultivariateNormal
from torch.distributions.kl import register_kl
from zuko.distributions import NormalizingFlow

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
"""log of the normal density's normalizing constant."""


class DiagonalGaussian(Distribution):
    """Independent normals over the last axis, from means and log-variances [..., D]."""

    has_rsample = True

    def __init__(self, loc: Float[Tensor, "*B D"], log_variance: Float[Tensor, "*B D"]) -> None:
        self.loc, self.log_variance = loc, log_variance
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.log_variance.exp()

    @property
    def stddev(self) -> Tensor:
        return (0.5 * self.log_variance).exp()

    def rsample(self, sample_shape: Any = Size()) -> Tensor:
        noise = torch.randn(*sample_shape, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, self.stddev, noise)

    def log_prob(self, value: Float[Tensor, "*S B D"]) -> Float[Tensor, "*S B"]:
        squares = (value - self.loc).square() * (-self.log_variance).exp()
        return -0.5 * (squares + self.log_variance).sum(-1) - value.shape[-1] * HALF_LOG_TAU


class FullGaussian(MultivariateNormal):
    """N(loc, L L^T) from a lower triangular L [B, D, D]."""

    def __init__(self, loc: Float[Tensor, "*B D"], scale_tril: Float[Tensor, "*B D D"]) -> None:
        super().__init__(loc, scale_tril=scale_tril, validate_args=False)

    def rsample_and_log_prob(self, sample_shape: Any = Size()) -> tuple[Tensor, Tensor]:
        """Samples loc + L e and their density, computed from e without solving a linear system."""
        noise = torch.randn(*sample_shape, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        z = self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return z, -0.5 * noise.square().sum(-1) - log_det - noise.shape[-1] * HALF_LOG_TAU


Gaussian = DiagonalGaussian | FullGaussian


class PointMass(Distribution):
    """All probability at `loc` [B, D]: the posterior of an autoencoder. It has no density."""

    has_rsample = True

    def __init__(self, loc: Float[Tensor, "*B D"]) -> None:
        self.loc = loc
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def rsample(self, sample_shape: Any = Size()) -> Tensor:
        return self.loc.expand(*sample_shape, *self.loc.shape)


class Mixture(Distribution):
    """K distributions, the batch of `components`, with probabilities softmax(logits); no batch shape."""

    MAX_ELEMENTS = 1 << 20
    """Of a tensor [points, K, D] in the density under components other than diagonal Gaussians."""

    def __init__(self, logits: Float[Tensor, " K"], components: Distribution) -> None:
        self.logits, self.components = logits.log_softmax(-1), components
        super().__init__(Size(), components.event_shape, validate_args=False)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        with torch.no_grad():
            chosen = Categorical(logits=self.logits, validate_args=False).sample(sample_shape)
            drawn = self.components.sample(sample_shape)
            return drawn.take_along_dim(chosen[..., None, None], -2).squeeze(-2)

    def log_prob(self, value: Float[Tensor, "*S B D"]) -> Float[Tensor, "*S B"]:
        each = self.components
        if isinstance(each, DiagonalGaussian):
            log_probs = _pairwise_log_prob(value, each)
        else:
            count, latents = len(self.logits), value.shape[-1]
            points = value.reshape(-1, 1, latents).split(max(1, self.MAX_ELEMENTS // (count * latents)))
            chunks = [each.log_prob(chunk.expand(-1, count, -1)) for chunk in points]
            log_probs = torch.cat(chunks).reshape(*value.shape[:-1], count)
        return torch.logsumexp(log_probs + self.logits, -1)


class MixtureOfClass(Distribution):
    """A mixture for every row of a batch: its class's K of the [Y, K] Gaussians `components`, with
    probabilities softmax(logits[y])."""

    def __init__(self, logits: Float[Tensor, "Y K"], components: Gaussian, y: Int[Tensor, " N"]) -> None:
        self.logits, self.components, self.y = logits, components, y
        super().__init__(y.shape, components.event_shape, validate_args=False)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        with torch.no_grad():
            chosen = Categorical(logits=self.logits[self.y], validate_args=False).sample(sample_shape)
            labels = self.y.expand_as(chosen)
            return map_parameters(self.components, lambda t: t[labels, chosen]).sample()

    def log_prob(self, value: Float[Tensor, "*S N D"]) -> Float[Tensor, "*S N"]:
        log_p = value.new_zeros(value.shape[:-1])
        for label in self.y.unique():
            rows = self.y == label
            components = map_parameters(self.components, operator.itemgetter(label))
            log_p[..., rows] = Mixture(self.logits[label], components).log_prob(value[..., rows, :])
        return log_p


def _pairwise_log_prob(z: Float[Tensor, "*S B D"], gaussians: DiagonalGaussian) -> Float[Tensor, "*S B K"]:
    """log N(z | mu_k, sigma_k^2) of every z under every component, without a tensor [*S, B, K, D].

    The expanded square cancels where components are narrow, so it is computed in float64 where available.
    """
    wide = torch.float64 if z.device.type != "mps" else z.dtype
    loc, precision, points = gaussians.loc.to(wide), (-gaussians.log_variance).exp().to(wide), z.to(wide)
    squares = points.square() @ precision.T - 2 * points @ (loc * precision).T
    squares = (squares + (loc.square() * precision).sum(-1)).clamp(min=0).to(z.dtype)
    return -0.5 * (squares + gaussians.log_variance.sum(-1)) - z.shape[-1] * HALF_LOG_TAU


class Flow(NormalizingFlow):  # type: ignore[misc]
    """Samples of `base` mapped by the inverse of `transform`."""

    @property
    def mean(self) -> Tensor:
        """The image of the base's mean: the center, not the expectation."""
        return self.transform.inv(self.base.mean)


def kl_per_latent(q: Distribution, p: Distribution) -> Float[Tensor, "*B D"] | None:
    """KL(q || p) of every latent in closed form, or None where no such sum over latents is known.

    For p = N(0, I) it is (mu^2 + sigma^2 - 1 - log sigma^2) / 2 (Kingma & Welling 2014, appendix B).
    """
    if not type(q) is type(p) is DiagonalGaussian:
        return None
    log_ratio = q.log_variance - p.log_variance
    squares = (q.loc - p.loc).square() * (-p.log_variance).exp()
    return 0.5 * (squares + log_ratio.exp() - 1 - log_ratio)


@register_kl(MultivariateNormal, DiagonalGaussian)  # type: ignore[untyped-decorator]
def _full_from_diagonal(q: MultivariateNormal, p: DiagonalGaussian) -> Tensor:
    """KL(N(mu, L L^T) || N(0, I)) = (|L|^2 + |mu|^2 - D) / 2 - log det L, after scaling each latent so that p
    is the standard normal."""
    loc, tril = (q.loc - p.loc) / p.stddev, q.scale_tril / p.stddev[..., None]
    squares = tril.square().sum((-2, -1)) + loc.square().sum(-1)
    return 0.5 * (squares - loc.shape[-1]) - tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def map_parameters(q: Gaussian, function: Callable[[Tensor], Tensor]) -> Gaussian:
    """A Gaussian whose parameters are `function` of those of q."""
    if isinstance(q, DiagonalGaussian):
        return DiagonalGaussian(function(q.loc), function(q.log_variance))
    return FullGaussian(function(q.loc), function(q.scale_tril))


def tempered(p: Distribution, temperature: float) -> Distribution:
    """p with its noise scaled by `temperature`: below 1 samples are more typical and less varied."""
    if temperature == 1:
        return p
    match p:
        case DiagonalGaussian():
            shift = 2 * math.log(temperature) if temperature else -math.inf
            return DiagonalGaussian(p.loc, p.log_variance + shift)
        case MultivariateNormal():
            return FullGaussian(p.loc, temperature * p.scale_tril)
        case Mixture():
            return Mixture(p.logits, tempered(p.components, temperature))
        case MixtureOfClass():
            return MixtureOfClass(p.logits, cast(Gaussian, tempered(p.components, temperature)), p.y)
        case Flow():
            return Flow(p.transform, tempered(p.base, temperature))
    raise NotImplementedError(type(p).__name__)
