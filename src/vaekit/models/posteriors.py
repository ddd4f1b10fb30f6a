"""Posteriors q(z | x): from the encoder's features to a distribution over latents.

Features are [B, F], or [B, F, h, w] for a latent image [c, h, w]; latents are flat, D = c h w.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.config.base import BaseConfig
from vaekit.config.latents import FlowPosteriorConfig, IafPosteriorConfig, NsfPosteriorConfig
from vaekit.errors import UserError, setting
from vaekit.models import flows
from vaekit.models.distributions.discretized import clamp_straight_through
from vaekit.models.distributions.latents import DiagonalGaussian, Flow, FullGaussian, PointMass
from vaekit.models.interfaces import Posterior
from vaekit.models.registry import BuildContext, Capability, register

LOG_VARIANCE_BOUND = 15.0
"""Standard deviations stay above exp(-7.5), so that noise does not vanish. Near zero the bound is the
identity."""
MAX_LOG_VARIANCE = 2 * math.log(10)
"""Standard deviations stay below 10, where those of priors are about 1. Without this bound, a nearly white
image among drawings had exp(6) in 188 of 256 latents in its second epoch, and its batch a KL of 1.9 million
nats."""
CLIPPED = -30.0, 20.0
"""Bounds of the log-variances of `clipped_gaussian`, those of diffusers' AutoencoderKL."""

Features = Float[Tensor, "B F"] | Float[Tensor, "B F h w"]

DENSITY = frozenset({Capability.DENSITY_AT_SAMPLE, Capability.DENSITY_ANYWHERE, Capability.SINGLE_GROUP})


def _head(context: BuildContext, numbers: int) -> nn.Module:
    """A linear map to `numbers` values per latent; for a latent image a 1x1 convolution."""
    inputs, outputs = context.features[0], numbers * context.latents[0]
    return nn.Conv2d(inputs, outputs, 1) if len(context.latents) == 3 else nn.Linear(inputs, outputs)


def soft_bound(log_variance: Tensor) -> Tensor:
    bounded = LOG_VARIANCE_BOUND * torch.tanh(log_variance / LOG_VARIANCE_BOUND)
    return clamp_straight_through(bounded, -LOG_VARIANCE_BOUND, MAX_LOG_VARIANCE)


@register("posterior", "gaussian")
class GaussianPosterior(Posterior):
    """Means and log-variances by a linear map (Kingma & Welling 2014, appendix C.2)."""

    provides = DENSITY | {Capability.FACTORIZED, Capability.MOMENTS, Capability.DETACHABLE_DENSITY}
    bound = staticmethod(soft_bound)

    def __init__(self, settings: BaseConfig, context: BuildContext) -> None:
        super().__init__()
        self.head = _head(context, 2)

    def forward(self, features: Features) -> DiagonalGaussian:
        loc, raw = self.head(features).chunk(2, dim=1)
        return DiagonalGaussian(loc.flatten(1), self.bound(raw.flatten(1)))


@register("posterior", "clipped_gaussian")
class ClippedGaussianPosterior(GaussianPosterior):
    """Log-variances are those of the linear map, clipped to -30 and 20: the posterior of latent diffusion
    (Rombach et al. 2022, arXiv:2112.10752)."""

    @staticmethod
    def bound(log_variance: Tensor) -> Tensor:
        return clamp_straight_through(log_variance, *CLIPPED)


@register("posterior", "delta")
class DeltaPosterior(Posterior):
    """A point, by a linear map."""

    provides = frozenset({Capability.SINGLE_GROUP})

    def __init__(self, settings: BaseConfig, context: BuildContext) -> None:
        super().__init__()
        self.head = _head(context, 1)

    def forward(self, features: Features) -> PointMass:
        return PointMass(self.head(features).flatten(1))


@register("posterior", "full_gaussian")
class FullGaussianPosterior(Posterior):
    """N(mu, L L^T) with a lower triangular L (Kingma & Welling 2019, arXiv:1906.02691, section 2.5.1).

    L = diag(sigma) C with rows of C of length 1: C is the Cholesky factor of the correlation matrix, sigma
    the standard deviations. The part of a row below the diagonal stays shorter than MAX_SLOPE times the
    diagonal, so that earlier latents explain at most 4/5 of a latent's variance: with strong correlations of
    32 latents the density of a point would be wrong by millions of nats in float32."""

    MAX_SLOPE = 2.0
    MAX_WEIGHTS = 1 << 28

    provides = DENSITY | {Capability.MOMENTS, Capability.DETACHABLE_DENSITY}
    below: Tensor

    def __init__(self, settings: BaseConfig, context: BuildContext) -> None:
        super().__init__()
        self.latents, inputs = context.latent_size, math.prod(context.features)
        numbers = self.latents * (self.latents + 3) // 2
        if inputs * numbers > self.MAX_WEIGHTS:
            needed = f"of {self.latents:,} latents needs {inputs * numbers:.1e} weights"
            hint = f"Use {setting('posterior.kind', 'gaussian')}, or fewer {setting('latents')}."
            raise UserError(f"The posterior 'full_gaussian' {needed}.", hint)
        self.head = nn.Linear(inputs, numbers)
        rows, columns = torch.tril_indices(self.latents, self.latents, offset=-1)
        self.register_buffer("below", rows * self.latents + columns, persistent=False)

    def forward(self, features: Features) -> FullGaussian:
        outputs = self.head(features.flatten(1))
        loc, log_variance, below = outputs.split([self.latents, self.latents, len(self.below)], dim=-1)
        zeros = loc.new_zeros(outputs.shape[0], self.latents**2)
        rows = zeros.scatter(1, self.below.expand(outputs.shape[0], -1), below)
        rows = rows.unflatten(1, (self.latents, self.latents))
        rows = rows / (1 + rows.square().sum(-1, keepdim=True) / self.MAX_SLOPE**2).sqrt()
        rows = rows + torch.eye(self.latents, dtype=loc.dtype, device=loc.device)
        sigma = (0.5 * soft_bound(log_variance)).exp()
        return FullGaussian(loc, rows * (sigma / rows.norm(dim=-1)).unsqueeze(-1))


class FlowPosterior(Posterior):
    """A diagonal Gaussian transformed by steps that are conditioned on a linear summary of the features."""

    def __init__(self, settings: FlowPosteriorConfig, context: BuildContext, steps: nn.Module) -> None:
        super().__init__()
        self.base = GaussianPosterior(settings, context)
        self.context = nn.Linear(math.prod(context.features), settings.context)
        self.steps = steps

    def forward(self, features: Features) -> Flow:
        transform = self.steps(self.context(features.flatten(1)))
        return Flow(transform.inv, self.base(features))


@register("posterior", "iaf")
class IafPosterior(FlowPosterior):
    """Inverse autoregressive steps (Kingma et al. 2016, arXiv:1606.04934).

    Sampling z with its log q takes one pass per step; the density elsewhere takes D, so it is not provided.
    """

    provides = frozenset({Capability.DENSITY_AT_SAMPLE, Capability.SINGLE_GROUP})

    def __init__(self, settings: IafPosteriorConfig, context: BuildContext) -> None:
        steps = flows.autoregressive(context.latent_size, settings.context, settings.steps, settings.hidden)
        super().__init__(settings, context, steps)


@register("posterior", "nsf")
class NsfPosterior(FlowPosterior):
    """Coupling steps of splines, fast in both directions (Durkan et al. 2019, arXiv:1906.04032)."""

    provides = DENSITY

    def __init__(self, settings: NsfPosteriorConfig, context: BuildContext) -> None:
        size, bins = context.latent_size, settings.bins
        steps = flows.spline(size, settings.context, settings.steps, settings.hidden, bins)
        super().__init__(settings, context, steps)
