"""Distributions of latents and of images, each with its density, its samples and its mean.

They follow `torch.distributions.Distribution`; arguments are validated on request only, because a check on a device
makes the processor wait for it.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, MultivariateNormal, constraints

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Level(constraints.Constraint):
    """One of the 256 levels 0, 1/255, ..., 1."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0) & (value <= 1) & ((value * 255).round() - value * 255).abs().lt(1e-3)


# --- Latents ---------------------------------------------------------------------------------------------------------


class DiagonalGaussian(Distribution):
    """Independent normals over the last axis, from their means and log-variances [..., D]."""

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "log_variance": constraints.real}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Float[Tensor, "*B D"], log_variance: Float[Tensor, "*B D"], validate_args: bool = False
    ) -> None:
        self.loc, self.log_variance = loc, log_variance
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args)

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
        if self._validate_args:
            self._validate_sample(value)
        squares = (value - self.loc).square() * (-self.log_variance).exp()
        return -0.5 * (squares + self.log_variance).sum(-1) - value.shape[-1] * HALF_LOG_TAU


class StandardNormal(Distribution):
    """N(0, I) over D latents; its batch shape is empty."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, latents: int, device: torch.device | None = None, validate_args: bool = False) -> None:
        self.device = device
        super().__init__(Size(), Size([latents]), validate_args)

    @property
    def mean(self) -> Tensor:
        return torch.zeros(self.event_shape, device=self.device)

    @property
    def variance(self) -> Tensor:
        return torch.ones(self.event_shape, device=self.device)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:
        return torch.randn(*sample_shape, *self.event_shape, device=self.device)

    def log_prob(self, value: Float[Tensor, "*S B D"]) -> Float[Tensor, "*S B"]:
        if self._validate_args:
            self._validate_sample(value)
        return -0.5 * value.square().sum(-1) - value.shape[-1] * HALF_LOG_TAU


def _gaussian_from_standard(q: DiagonalGaussian, p: StandardNormal) -> Tensor:
    """Kingma & Welling 2014, appendix B: KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2."""
    return 0.5 * (q.loc.square() + q.variance - 1 - q.log_variance)


def _gaussian_from_gaussian(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    log_ratio = q.log_variance - p.log_variance
    squares = (q.loc - p.loc).square() * (-p.log_variance).exp()
    return 0.5 * (squares + log_ratio.exp() - 1 - log_ratio)


_KL_PER_LATENT: dict[tuple[type, type], Callable[..., Tensor]] = {
    (DiagonalGaussian, StandardNormal): _gaussian_from_standard,
    (DiagonalGaussian, DiagonalGaussian): _gaussian_from_gaussian,
}


def kl_per_latent(q: Distribution, p: Distribution) -> Float[Tensor, "*B D"] | None:
    """KL(q || p) of every latent in closed form, or None where it is not known to be a sum over latents."""
    formula = _KL_PER_LATENT.get((type(q), type(p)))
    return formula(q, p) if formula else None


def stopped(q: Distribution) -> Distribution:
    """q with its parameters held fixed: no gradient reaches them."""
    match q:
        case DiagonalGaussian():
            return DiagonalGaussian(q.loc.detach(), q.log_variance.detach())
        case MultivariateNormal():
            return MultivariateNormal(q.loc.detach(), scale_tril=q.scale_tril.detach(), validate_args=False)
    raise NotImplementedError(type(q).__name__)


# --- Images: events are [C, H, W] ------------------------------------------------------------------------------------


def _per_image(values: Float[Tensor, "*S B C H W"]) -> Float[Tensor, "*S B"]:
    return values.flatten(-3).sum(-1)


class PixelBernoulli(Distribution):
    """Independent Bernoullis, from logits. On grey values in (0, 1) log_prob is minus the binary cross-entropy, which
    is not the logarithm of a normalised density."""

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": constraints.real}
    support = constraints.independent(constraints.unit_interval, 3)

    def __init__(self, logits: Float[Tensor, "*S B C H W"], validate_args: bool = False) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-3], logits.shape[-3:], validate_args)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logits)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        return torch.bernoulli(self.mean.expand(*sample_shape, *self.logits.shape))

    def log_prob(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B"]:
        if self._validate_args:
            self._validate_sample(value)
        # x log p + (1 - x) log (1 - p) with p = sigmoid(l) is x l - softplus(l), free of cancellation
        return _per_image(value * self.logits - F.softplus(self.logits))


class PixelGaussian(Distribution):
    """Independent normals around `loc`, with the logarithm of one standard deviation for all pixels: a density."""

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "log_sigma": constraints.real}
    support = constraints.independent(constraints.real, 3)

    def __init__(
        self, loc: Float[Tensor, "*S B C H W"], log_sigma: Float[Tensor, ""], validate_args: bool = False
    ) -> None:
        self.loc, self.log_sigma = loc, log_sigma
        super().__init__(loc.shape[:-3], loc.shape[-3:], validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        noise = torch.randn(*sample_shape, *self.loc.shape, device=self.loc.device)
        return self.loc + self.log_sigma.exp() * noise

    def log_prob(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B"]:
        if self._validate_args:
            self._validate_sample(value)
        squares = _per_image((value - self.loc).square())
        dimensions = math.prod(self.event_shape)
        return -0.5 * squares * (-2 * self.log_sigma).exp() - dimensions * (self.log_sigma + HALF_LOG_TAU)

    def expected_square(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B C H W"]:
        """(value - loc)^2."""
        return (value - self.loc).square()


class DiscretizedGaussian(Distribution):
    """A normal rounded to the nearest of 256 levels; what falls below 0 or above 1 counts as the end levels.

    P(x) = Phi((x + h - loc) / sigma) - Phi((x - h - loc) / sigma) with h = 1/510, its outer edges moved to infinity
    (Salimans et al. 2017, PixelCNN++, equation 2, with a normal in place of the logistic).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "log_sigma": constraints.real}
    support = constraints.independent(Level(), 3)

    def __init__(
        self, loc: Float[Tensor, "*S B C H W"], log_sigma: Float[Tensor, ""], validate_args: bool = False
    ) -> None:
        self.loc, self.log_sigma = loc, log_sigma
        super().__init__(loc.shape[:-3], loc.shape[-3:], validate_args)

    @property
    def mean(self) -> Tensor:
        """E[x]: the mean of the normal clipped to [0, 1]. Rounding moves it by less than 2e-4 once sigma is above half
        a level, and by at most half a level below that."""
        sigma = self.log_sigma.exp()
        low, high = -self.loc / sigma, (1 - self.loc) / sigma
        inside = torch.special.ndtr(high) - torch.special.ndtr(low)
        densities = (-0.5 * low.square()).exp() - (-0.5 * high.square()).exp()
        bulge: Tensor = self.loc * inside + sigma * densities * math.exp(-HALF_LOG_TAU)
        bulge = bulge + torch.special.ndtr(-high)
        return bulge.clamp(0, 1)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        noise = torch.randn(*sample_shape, *self.loc.shape, device=self.loc.device)
        return ((self.loc + self.log_sigma.exp() * noise).clamp(0, 1) * 255).round() / 255

    def log_prob(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B"]:
        if self._validate_args:
            self._validate_sample(value)
        return _per_image(_log_phi_between(*self._edges(value)))

    def expected_square(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B C H W"]:
        """E[(t - loc)^2] of the normal t that was rounded and clipped to `value`.

        The second moment of a truncated normal: sigma^2 (1 + (l phi(l) - u phi(u)) / (Phi(u) - Phi(l))) between its
        standardised edges l and u.
        """
        lower, upper = self._edges(value)
        base = _log_phi_between(lower, upper) + HALF_LOG_TAU
        falling, rising = (torch.exp(-0.5 * edge.square() - base) for edge in (lower, upper))
        return (2 * self.log_sigma).exp() * (1 + lower * falling - upper * rising).clamp(min=0)

    def _edges(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The edges of the level's bin in standard deviations from loc, on the side of zero where their Phi are small
        and nothing cancels."""
        precision = (-self.log_sigma).exp()
        distance = value - self.loc
        near = ((distance + 1 / 510) * precision).masked_fill(value > 1 - 1 / 510, FAR)
        far = ((distance - 1 / 510) * precision).masked_fill(value < 1 / 510, -FAR)
        flip = distance > 0
        return torch.where(flip, -near, far), torch.where(flip, -far, near)


FAR = 1e4
"""As good as infinity for a standard normal, and finite, so that no gradient becomes infinity times zero."""


class _LogPhiBetween(torch.autograd.Function):
    """log(Phi(upper) - Phi(lower)), for lower < upper and not both far above zero.

    Its gradient by the closed form phi(upper) / P and -phi(lower) / P: two exponentials, where a derivative of every
    step of the way would cost more than the decoder of a small model.
    """

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor) -> Tensor:
        log_upper = _log_phi(upper)
        gap = _log_phi(lower).sub_(log_upper).clamp_(max=-1e-12)
        log_p = gap.expm1_().neg_().log_().add_(log_upper)
        ctx.save_for_backward(lower, upper, log_p)
        return log_p

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper, log_p = ctx.saved_tensors
        base = log_p + HALF_LOG_TAU
        falling = torch.exp(-0.5 * lower.square() - base)
        rising = torch.exp(-0.5 * upper.square() - base)
        grad = grads[0]
        return grad.neg().mul(falling), grad.mul(rising)


def _log_phi(x: Tensor) -> Tensor:
    """log Phi(x): from erfc, and below -10 by its asymptotic series (Abramowitz & Stegun 1964, 26.2.12).

    torch.special.log_ndtr does the same at several times the cost, and not on every device.
    """
    near = torch.erfc(x.clamp(min=-10) * -math.sqrt(0.5)).mul_(0.5).log_()
    tail = x.clamp(max=-10)
    s = tail.square().reciprocal()
    series = torch.log1p(s * (-1 + s * (3 - 15 * s)))
    return torch.where(x > -10, near, -0.5 * tail.square() - torch.log(-tail) - HALF_LOG_TAU + series)


_log_phi_between = cast(Callable[[Tensor, Tensor], Tensor], _LogPhiBetween.apply)
