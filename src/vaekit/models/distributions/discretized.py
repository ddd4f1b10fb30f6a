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
from torch.autograd.function import once_differentiable

from vaekit.models.distributions.latents import HALF_LOG_TAU

HALF_LEVEL = 1 / 510
"""Half the distance between two of the 256 levels."""

FAR_EDGE = 1e12
"""Infinity in standardized values; finite, so that no gradient becomes infinity times zero."""


LevelTerms = tuple[Tensor, Tensor | None, Tensor | None]
"""log P of every pixel's level, and if asked for its derivatives by loc and by log sigma."""


@dataclass(frozen=True)
class LocScaleFamily:
    """A symmetric distribution of location 0 and scale 1."""

    log_density: Callable[[Tensor], Tensor]
    """log f(u)."""
    level_terms: Callable[[Tensor, Tensor, Tensor, bool, bool], LevelTerms]
    """Of loc, log sigma and value, and whether the derivatives by loc and by log sigma are asked for."""
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


def _log_between_logistic(lower: Tensor, upper: Tensor) -> Tensor:
    """F(u) - F(l) = F(u) F(-l) (1 - e^(l - u)): a product, so that nothing cancels anywhere."""
    return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))


def _by_edges(
    log_density: Callable[[Tensor], Tensor], log_between: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor, Tensor, bool, bool], LevelTerms]:
    """`level_terms` from the standardized edges of the level's bin, mirrored to where F is small.

    `log_between` is log(F(upper) - F(lower)) for lower < upper, where lower is farther from zero and nothing
    cancels. The derivatives of log P by the edges are f / P there, but for the lower one's sign.
    """

    def level_terms(
        loc: Tensor, log_sigma: Tensor, value: Tensor, by_loc: bool, by_log_sigma: bool
    ) -> LevelTerms:
        distance = value - loc
        above = distance > 0
        precision = (-log_sigma).exp()
        distance = distance.abs_()
        lower, upper = -(distance + HALF_LEVEL) * precision, (HALF_LEVEL - distance) * precision
        white, end = _end_levels(value)
        outward = above == white
        lower.masked_fill_(end & outward, -FAR_EDGE)
        upper.masked_fill_(end & ~outward, FAR_EDGE)
        log_p = log_between(lower, upper)
        if not (by_loc or by_log_sigma):
            return log_p, None, None
        falling, rising = (log_density(edge).sub(log_p).exp_() for edge in (lower, upper))
        slope = (lower * falling).addcmul_(upper, rising, value=-1) if by_log_sigma else None
        towards = rising.sub_(falling).mul_(precision)
        return log_p, torch.where(above, towards, -towards), slope

    return level_terms


def _laplace_level_terms(
    loc: Tensor, log_sigma: Tensor, value: Tensor, by_loc: bool, by_log_sigma: bool
) -> LevelTerms:
    """In closed form: three transcendental functions a pixel, where edges take nine.

    With s = |value - loc|, r = min(s, h) and a = 1 / sigma, the level has
    P = (1 - (e^(-a (h - r)) + e^(-a (h + r))) / 2) e^(-a (s - r)): within the bin (s < h) that is the
    difference of F, outside of it the tail. Of black and white the outer half of the bin has no edge, so that
    the second term is 0, and s is negative where loc is beyond the edge of the range.
    """
    precision = (-log_sigma).exp()
    offset = loc - value
    white, end = _end_levels(value)
    sign = offset.sign().masked_fill_(end, 1).masked_fill_(white, -1)
    distance = offset.mul_(sign)
    inside = distance.clamp(max=HALF_LEVEL)
    near = ((inside - HALF_LEVEL) * precision).expm1_()  # the terms minus 1, so that nothing cancels
    far = ((-HALF_LEVEL - inside) * precision).expm1_().masked_fill_(end, -1)
    both = near + far
    tail = (distance - inside) * precision
    log_p = (both * -0.5).log_().sub_(tail)
    slope = None
    if by_log_sigma:
        slope = (inside - HALF_LEVEL).mul_(near + 1).sub_((inside + HALF_LEVEL).mul_(far + 1))
        slope = slope.div_(both).mul_(-precision).add_(tail)
    gradient = near.sub_(far).div_(both).mul_(sign).mul_(precision) if by_loc else None
    return log_p, gradient, slope


def _end_levels(value: Tensor) -> tuple[Tensor, Tensor]:
    """Where the level is white, and where it is black or white."""
    white = value > 1 - HALF_LEVEL
    return white, white | (value < HALF_LEVEL)


def _normal_log_density(u: Tensor) -> Tensor:
    return -0.5 * u.square() - HALF_LOG_TAU


def _logistic_log_density(u: Tensor) -> Tensor:
    return 2 * F.logsigmoid(u) - u


NORMAL = LocScaleFamily(
    log_density=_normal_log_density,
    level_terms=_by_edges(_normal_log_density, _log_between_normal),
    integral=lambda u: u * torch.special.ndtr(u) + torch.exp(-0.5 * u.square() - HALF_LOG_TAU),
    fill=lambda t: t.normal_(),
    power=2,
)

LAPLACE = LocScaleFamily(
    log_density=lambda u: -u.abs() - math.log(2),
    level_terms=_laplace_level_terms,
    integral=lambda u: u.clamp(min=0) + 0.5 * torch.exp(-u.abs()),
    fill=lambda t: torch.empty_like(t).exponential_() - t.exponential_(),
    power=1,
)

LOGISTIC = LocScaleFamily(
    log_density=_logistic_log_density,
    level_terms=_by_edges(_logistic_log_density, _log_between_logistic),
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
    for normal and Laplace.
    """
    _, _, slope = noise.level_terms(loc, log_sigma, value, False, True)
    assert slope is not None
    return (noise.power * log_sigma).exp() * (1 + slope).clamp(min=0)


class _DiscretizedLogProb(torch.autograd.Function):
    """With its gradient in closed form: autograd would cost more than the decoder of a small model."""

    @staticmethod
    def forward(ctx: Any, loc: Tensor, log_sigma: Tensor, value: Tensor, noise: LocScaleFamily) -> Tensor:
        log_p, by_loc, by_log_sigma = noise.level_terms(loc, log_sigma, value, *ctx.needs_input_grad[:2])
        ctx.save_for_backward(by_loc, by_log_sigma)
        ctx.shapes = loc.shape, log_sigma.shape
        return log_p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        by_loc, by_log_sigma = (
            None if slope is None or not needed else (slope * grads[0]).sum_to_size(shape)
            for slope, needed, shape in zip(
                ctx.saved_tensors, ctx.needs_input_grad[:2], ctx.shapes, strict=True
            )
        )
        return by_loc, by_log_sigma, None, None


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
