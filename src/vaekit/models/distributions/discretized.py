"""Location-scale families (normal, Laplace, logistic), and their discretization to 256 levels.

u = (t - loc) / sigma is a standardized value, f the density and F the distribution function of the noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.models.distributions.latents import HALF_LOG_TAU

HALF_LEVEL = 1 / 510
"""Half the distance between two of the 256 levels."""

FAR_EDGE = 1e12
"""Infinity in standardized values; finite, so that no gradient becomes infinity times zero."""


@dataclass(frozen=True)
class LocScaleFamily:
    """A symmetric distribution of location 0 and scale 1."""

    log_density: Callable[[Tensor], Tensor]
    """log f(u)."""
    log_between: Callable[[Tensor, Tensor], Tensor]
    """log(F(upper) - F(lower)) for lower < upper, mirrored so that lower is farther from zero, where F is
    small and nothing cancels."""
    integral: Callable[[Tensor], Tensor]
    """The integral of F from minus infinity to u."""
    fill: Callable[[Tensor], Tensor]
    """Samples in the shape of a tensor, which may be overwritten."""
    power: int = 0
    """The maximum-likelihood sigma is mean(|t - loc|^power)^(1/power); 0 if it has no such form."""


def _log_phi(x: Tensor) -> Tensor:
    """log Phi(x): from erfc, and below -10 by its asymptotic series (Abramowitz & Stegun 1964, 26.2.12).

    torch.special.log_ndtr is several times slower and not available on every device.
    """
    near = torch.erfc(x.clamp(min=-10) * -math.sqrt(0.5)).mul_(0.5).log_()
    tail = x.clamp(max=-10)
    s = tail.square().reciprocal()
    series = torch.log1p(s * (-1 + s * (3 - 15 * s)))
    return torch.where(x > -10, near, -0.5 * tail.square() - torch.log(-tail) - HALF_LOG_TAU + series)


def _log_between_normal(lower: Tensor, upper: Tensor) -> Tensor:
    log_upper = _log_phi(upper)
    gap = _log_phi(lower).sub_(log_upper).clamp_(max=-1e-12)
    return gap.expm1_().neg_().log_().add_(log_upper)


def _log_between_laplace(lower: Tensor, upper: Tensor) -> Tensor:
    """(e^u - e^l) / 2 if both edges are below zero, else 1 - (e^l + e^-u) / 2."""
    both_below = upper - math.log(2) + torch.log(-torch.expm1(lower - upper))
    across = torch.log((torch.expm1(lower) + torch.expm1(-upper.abs())).mul_(-0.5))
    return torch.where(upper < 0, both_below, across)


def _log_between_logistic(lower: Tensor, upper: Tensor) -> Tensor:
    """F(u) - F(l) = F(u) F(-l) (1 - e^(l - u)): a product, so that nothing cancels anywhere."""
    return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))


NORMAL = LocScaleFamily(
    log_density=lambda u: -0.5 * u.square() - HALF_LOG_TAU,
    log_between=_log_between_normal,
    integral=lambda u: u * torch.special.ndtr(u) + torch.exp(-0.5 * u.square() - HALF_LOG_TAU),
    fill=lambda t: t.normal_(),
    power=2,
)

LAPLACE = LocScaleFamily(
    log_density=lambda u: -u.abs() - math.log(2),
    log_between=_log_between_laplace,
    integral=lambda u: u.clamp(min=0) + 0.5 * torch.exp(-u.abs()),
    fill=lambda t: torch.empty_like(t).exponential_() - t.exponential_(),
    power=1,
)

LOGISTIC = LocScaleFamily(
    log_density=lambda u: 2 * F.logsigmoid(u) - u,
    log_between=_log_between_logistic,
    integral=F.softplus,
    fill=lambda t: torch.logit(t.uniform_(), eps=2**-24),
)


# --- Rounded to the nearest of 256 levels; values outside [0, 1] count as the end levels ---


def sample(loc: Tensor, log_sigma: Tensor, noise: LocScaleFamily) -> Tensor:
    return ((loc + log_sigma.exp() * noise.fill(torch.empty_like(loc))).clamp(0, 1) * 255).round() / 255


def clipped_mean(loc: Tensor, log_sigma: Tensor, noise: LocScaleFamily) -> Tensor:
    """E[t clipped to [0, 1]] = the integral of P(t > v) over v from 0 to 1. Rounding would change it by less
    than 2e-4 where sigma is above half a level."""
    sigma = log_sigma.exp()
    return (sigma * (noise.integral(loc / sigma) - noise.integral((loc - 1) / sigma))).clamp(0, 1)


def log_prob(loc: Tensor, log_sigma: Tensor, value: Tensor, noise: LocScaleFamily) -> Tensor:
    """log P of every pixel. `log_sigma` and `value` broadcast to `loc`; `value` is data and gets no gradient.

    P(x) = F((x + h - loc) / sigma) - F((x - h - loc) / sigma) with h = 1/510, its outer edges moved to
    infinity (Salimans et al. 2017, PixelCNN++, equation 2).
    """
    return _DiscretizedLogProb.apply(loc, log_sigma, value, noise)


def expected_power(loc: Tensor, log_sigma: Tensor, value: Tensor, noise: LocScaleFamily) -> Tensor:
    """E |t - loc|^power of the noisy t given its rounded, clipped `value`: the E step for sigma.

    The derivative of log P by log sigma is the mean over the level of that of log f, which is |u|^power - 1
    for normal and Laplace: so E |u|^power = 1 + (l f(l) - u f(u)) / P between standardized edges l and u.
    """
    lower, upper, _ = _edges(loc, log_sigma, value)
    falling, rising = _slopes(lower, upper, noise.log_between(lower, upper), noise)
    return (noise.power * log_sigma).exp() * (1 + lower * falling - upper * rising).clamp(min=0)


class _DiscretizedLogProb(torch.autograd.Function):
    """With its gradient in closed form: autograd would cost more than the decoder of a small model."""

    @staticmethod
    def forward(ctx: Any, loc: Tensor, log_sigma: Tensor, value: Tensor, noise: LocScaleFamily) -> Tensor:
        lower, upper, above = _edges(loc, log_sigma, value)
        log_p = noise.log_between(lower, upper)
        ctx.save_for_backward(log_sigma, lower, upper, above, log_p)
        ctx.noise, ctx.shape = noise, loc.shape
        return log_p

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        log_sigma, lower, upper, above, log_p = ctx.saved_tensors
        falling, rising = (slope.mul_(grads[0]) for slope in _slopes(lower, upper, log_p, ctx.noise))
        by_loc = by_log_sigma = None
        if ctx.needs_input_grad[1]:
            by_log_sigma = (lower * falling).addcmul_(upper, rising, value=-1).sum_to_size(log_sigma.shape)
        if ctx.needs_input_grad[0]:
            towards = rising.sub_(falling).mul_((-log_sigma).exp())
            by_loc = torch.where(above, towards, -towards).sum_to_size(ctx.shape)
        return by_loc, by_log_sigma, None, None


def _edges(loc: Tensor, log_sigma: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The standardized edges of the level's bin, mirrored to where F is small, and where that was needed."""
    distance = value - loc
    above = distance > 0
    precision = (-log_sigma).exp()
    distance = distance.abs_()
    lower, upper = -(distance + HALF_LEVEL) * precision, (HALF_LEVEL - distance) * precision
    white = value > 1 - HALF_LEVEL
    end = white | (value < HALF_LEVEL)
    outward = above == white
    return lower.masked_fill_(end & outward, -FAR_EDGE), upper.masked_fill_(end & ~outward, FAR_EDGE), above


def _slopes(lower: Tensor, upper: Tensor, log_p: Tensor, noise: LocScaleFamily) -> tuple[Tensor, Tensor]:
    """f / P at both edges: the derivatives of log P by the edges, but for the lower one's sign."""
    return noise.log_density(lower).sub(log_p).exp_(), noise.log_density(upper).sub(log_p).exp_()


class _ClampStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, low: float, high: float) -> Tensor:
        return t.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


def clamp_straight_through(t: Tensor, low: float, high: float) -> Tensor:
    """Clamp t and pass the gradient through, so that values outside can return."""
    return _ClampStraightThrough.apply(t, low, high)
