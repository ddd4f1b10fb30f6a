"""q(z | x): from the encoder's features to a distribution over latents.

Features are [B, F], or [B, F, h, w] where the latents form an image [C, h, w]. Either way a posterior is a distribution
over flat latents, D = C h w of them.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.errors import UserError
from vaekit.models import flows
from vaekit.models.distributions.latents import DiagonalGaussian, Flow, FullGaussian, PointMass
from vaekit.models.registry import register

LOG_VARIANCE_BOUND = 15.0
"""Standard deviations stay between exp(-7.5) and exp(7.5): no overflow, and no vanishing noise, whatever the encoder
says. Near zero the bound is the identity."""


Shape = tuple[int, ...]


Features = Float[Tensor, "B F"] | Float[Tensor, "B F h w"]


DENSITY = frozenset({"density_at_sample", "density_anywhere", "single_group"})


def _head(features: Shape, latents: Shape, numbers: int) -> nn.Module:
    """A linear map to so many numbers a latent, at each pixel by itself where the latents form an image."""
    if len(latents) == 3:
        return nn.Conv2d(features[0], numbers * latents[0], 1)
    return nn.Linear(features[0], numbers * latents[0])


def soft_bound(log_variance: Tensor) -> Tensor:
    return LOG_VARIANCE_BOUND * torch.tanh(log_variance / LOG_VARIANCE_BOUND)


@register("posterior", "gaussian")
class GaussianPosterior(nn.Module):
    """A linear map to means and log-variances (Kingma & Welling 2014, appendix C.2)."""

    provides = DENSITY | {"factorised", "moments", "stopped_density"}

    def __init__(self, features: Shape, latents: Shape) -> None:
        super().__init__()
        self.head = _head(features, latents, 2)

    def forward(self, features: Features) -> DiagonalGaussian:
        loc, raw = self.head(features).chunk(2, dim=1)
        return DiagonalGaussian(loc.flatten(1), soft_bound(raw.flatten(1)))


@register("posterior", "delta")
class DeltaPosterior(nn.Module):
    """A linear map to a point."""

    provides = frozenset({"single_group"})

    def __init__(self, features: Shape, latents: Shape) -> None:
        super().__init__()
        self.head = _head(features, latents, 1)

    def forward(self, features: Features) -> PointMass:
        return PointMass(self.head(features).flatten(1))


@register("posterior", "full_gaussian")
class FullGaussianPosterior(nn.Module):
    """N(mu, L L^T) with a lower triangular L (Kingma & Welling 2019, arXiv:1906.02691, section 2.5.1).

    L = diag(sigma) C with rows of C of length 1: C is the Cholesky factor of the correlations, sigma, bounded as ever,
    the standard deviation of every latent. What is below the diagonal of a row is kept shorter than MAX_SLOPE times the
    diagonal: earlier latents tell at most 4/5 of a latent's variance. Without that bound the density of a point, which
    solves for the noise, is off by millions of nats in 32 bits where the correlations of 32 latents are strong."""

    MAX_SLOPE = 2.0
    MAX_WEIGHTS = 1 << 28

    provides = DENSITY | {"moments", "stopped_density"}
    below: Tensor

    def __init__(self, features: Shape, latents: Shape) -> None:
        super().__init__()
        self.latents = math.prod(latents)
        numbers = self.latents * (self.latents + 3) // 2
        if math.prod(features) * numbers > self.MAX_WEIGHTS:
            raise UserError(
                f"The posterior 'full_gaussian' of {self.latents:,} latents takes {math.prod(features) * numbers:.1e} "
                "weights: take --posterior.kind gaussian, or fewer --latents."
            )
        self.head = nn.Linear(math.prod(features), numbers)
        rows, columns = torch.tril_indices(self.latents, self.latents, offset=-1)
        self.register_buffer("below", rows * self.latents + columns, persistent=False)

    def forward(self, features: Features) -> FullGaussian:
        outputs = self.head(features.flatten(1))
        loc, log_variance, below = outputs.split([self.latents, self.latents, len(self.below)], dim=-1)
        square = (self.latents, self.latents)
        rows = loc.new_zeros(len(outputs), self.latents**2).scatter(1, self.below.expand(len(outputs), -1), below)
        rows = rows.unflatten(1, square)
        rows = rows / (1 + rows.square().sum(-1, keepdim=True) / self.MAX_SLOPE**2).sqrt()
        rows = rows + torch.eye(self.latents, dtype=loc.dtype, device=loc.device)
        sigma = (0.5 * soft_bound(log_variance)).exp()
        return FullGaussian(loc, rows * (sigma / rows.norm(dim=-1)).unsqueeze(-1))


class FlowPosterior(nn.Module):
    """A diagonal Gaussian carried through flow steps that see a summary of the features, `context` numbers."""

    def __init__(self, features: Shape, latents: Shape, context: int, steps: nn.Module) -> None:
        super().__init__()
        self.base = GaussianPosterior(features, latents)
        self.context = nn.Linear(math.prod(features), context)
        self.steps = steps

    def forward(self, features: Features) -> Flow:
        transform = self.steps(self.context(features.flatten(1)))
        return Flow(transform.inv, self.base(features))


@register("posterior", "iaf")
class IafPosterior(FlowPosterior):
    """A diagonal Gaussian carried through inverse autoregressive steps (Kingma et al. 2016, arXiv:1606.04934).

    Drawing z and log q at it is one pass a step; the density of any other point takes D of them, so it is not offered.
    """

    provides = frozenset({"density_at_sample", "single_group"})

    def __init__(
        self, features: Shape, latents: Shape, steps: int = 4, hidden: tuple[int, ...] = (128,), context: int = 64
    ) -> None:
        super().__init__(features, latents, context, flows.autoregressive(math.prod(latents), context, steps, hidden))


@register("posterior", "nsf")
class NsfPosterior(FlowPosterior):
    """A diagonal Gaussian carried through coupling steps of monotonic rational-quadratic splines, quick both ways
    (Durkan et al. 2019, arXiv:1906.04032)."""

    provides = DENSITY

    def __init__(
        self,
        features: Shape,
        latents: Shape,
        steps: int = 4,
        hidden: tuple[int, ...] = (128,),
        context: int = 64,
        bins: int = 8,
    ) -> None:
        super().__init__(features, latents, context, flows.spline(math.prod(latents), context, steps, hidden, bins))
