"""Distributions of images, with events [C, H, W].

The `location` of those with noise is the image to show: the center of the noise, clipped to [0, 1]. The mean
of noise that is clipped at black and white is darker than white and lighter than black, by about half the
noise level. A Bernoulli's image is its mean: the mode would be black or white.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Size, Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Distribution, constraints

from vaekit.models.distributions import discretized
from vaekit.models.distributions.discretized import LocScaleFamily
from vaekit.utils.random import GOLDEN_GAMMA, splitmix64, unit_interval


class LevelSupport(constraints.Constraint):
    """One of the 256 levels 0, 1/255, ..., 1."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0) & (value <= 1) & ((value * 255).round() - value * 255).abs().lt(1e-3)


def sum_pixels(values: Float[Tensor, "*S B C H W"]) -> Float[Tensor, "*S B"]:
    return values.sum((-3, -2, -1))  # no copy in any memory format


class _BernoulliLogProb(torch.autograd.Function):
    """x log p + (1 - x) log (1 - p) with p = sigmoid(l), summed over an image: x l - softplus(l).

    Its derivative by l, x - p, takes half the passes over memory of autograd; x is data, without gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(logits, value)
        return sum_pixels(F.softplus(logits).addcmul_(value, logits, value=-1)).neg_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, value = ctx.saved_tensors
        p = torch.sigmoid(logits)
        return torch.sub(value, p, out=p).mul_(grads[0][..., None, None, None]), None


class PixelBernoulli(Distribution):
    """Independent Bernoullis, from logits; on gray values log_prob is minus the binary cross-entropy."""

    def __init__(self, logits: Float[Tensor, "*S B C H W"]) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-3], logits.shape[-3:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logits)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        return torch.bernoulli(self.mean.expand(*sample_shape, *self.logits.shape))

    def log_prob(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B"]:
        return _BernoulliLogProb.apply(self.logits, value)


# --- Continuous Bernoulli ---


def _lower_tail(a: Tensor) -> Tensor:
    """The mean at logit -a, for a >= 0: 1 / a - 1 / (e^a - 1), and its series below 1, where that cancels."""
    far = a.clamp(min=1)
    direct = far.reciprocal() - torch.exp(-far) / -torch.expm1(-far)
    s = a.clamp(max=1).square()
    series = a.clamp(max=1) * (1 / 12 - s * (1 / 720 - s * (1 / 30240 - s * (1 / 1209600 - s / 47900160))))
    return torch.where(a > 1, direct, 0.5 - series)


class _LogNormalizer(torch.autograd.Function):
    """log((1 - e^-|l|) / |l|), the integral of e^(-|l| x) over [0, 1]; its slope stays finite at l = 0."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        a = logits.abs().clamp_(min=1e-20)
        return torch.expm1(-a).neg_().div_(a).log_()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        tail = _lower_tail(logits.abs()).mul_(grads[0])
        return torch.where(logits > 0, -tail, tail)


class PixelContinuousBernoulli(PixelBernoulli):
    """Independent densities proportional to lambda^x (1 - lambda)^(1 - x) on [0, 1], from the logits l of
    lambda.

    Loaiza-Ganem & Cunningham 2019 (arXiv:1907.06845). Their normalizer 2 atanh(1 - 2 lambda) /
    (1 - 2 lambda) is l / tanh(l / 2), so that p(x) = e^(l x) l / (e^l - 1).
    """

    @property
    def mean(self) -> Tensor:
        """1 / (1 - e^-l) - 1 / l; 1/2 at l = 0."""
        tail = _lower_tail(self.logits.abs())
        return torch.where(self.logits > 0, 1 - tail, tail)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        """By the inverse distribution function at logit -|l|, mirrored where l is positive."""
        u = torch.rand(*sample_shape, *self.logits.shape, dtype=self.logits.dtype, device=self.logits.device)
        a = self.logits.abs().clamp(min=1e-20)
        x = (torch.log1p(u * torch.expm1(-a)) / -a).clamp(0, 1)
        return torch.where(self.logits > 0, 1 - x, x)

    def log_prob(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B"]:
        # x l - log((e^l - 1) / l), with e^l factored out of the logarithm where l is positive
        tilt = (value - (self.logits > 0).to(value.dtype)) * self.logits
        return sum_pixels(tilt - _LogNormalizer.apply(self.logits))


# --- Noise around a location ---


class LocScale(Distribution):
    """A density: independent noise around `loc`, with a log-scale for all pixels or for each."""

    def __init__(
        self, loc: Float[Tensor, "*S B C H W"], log_sigma: Float[Tensor, "..."], noise: LocScaleFamily
    ) -> None:
        self.loc, self.log_sigma, self.noise = loc, log_sigma, noise
        super().__init__(loc.shape[:-3], loc.shape[-3:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def location(self) -> Tensor:
        """The center of the noise, its mode, clipped to [0, 1]."""
        return self.loc.clamp(0, 1)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        noise = torch.empty(*sample_shape, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.log_sigma.exp() * self.noise.fill(noise)

    def log_prob(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B"]:
        log_density = self.noise.log_density((value - self.loc) * (-self.log_sigma).exp())
        return sum_pixels(log_density - self.log_sigma)

    def expected_power(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B C H W"]:
        """|value - loc|^power."""
        return (value - self.loc).abs().pow(self.noise.power)


class DiscretizedLocScale(LocScale):
    """The same rounded to the nearest of 256 levels; values below 0 or above 1 count as the end levels.

    Salimans et al. 2017 (PixelCNN++, arXiv:1701.05517), equation 2, with any noise instead of the logistic.
    """

    @property
    def mean(self) -> Tensor:
        """E[x] with clipping and without rounding: within 2e-4 where sigma is above half a level."""
        return discretized.clipped_mean(self.loc, self.log_sigma, self.noise)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        return discretized.sample(self.loc.expand(*sample_shape, *self.loc.shape), self.log_sigma, self.noise)

    def log_prob(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B"]:
        return sum_pixels(discretized.log_prob(self.loc, self.log_sigma, value, self.noise))

    def expected_power(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B C H W"]:
        """E |t - loc|^power of the noisy t given that it was rounded and clipped to `value`."""
        return discretized.expected_power(self.loc, self.log_sigma, value, self.noise)


# --- Binarization ---


def deterministic_binarize(x: Float[Tensor, "B C H W"], seed: int) -> Float[Tensor, "B C H W"]:
    """Binarize with x as the probability of white, by a hash of the seed, the image and the position of the
    pixel: the same on every device and in every batch."""
    place = splitmix64(torch.arange(1, x[0].numel() + 1, device=x.device) * GOLDEN_GAMMA + seed)
    levels = (x.flatten(1) * 255).round().long()
    image = splitmix64(_wrapping_sum(splitmix64(levels ^ place)))
    uniform = unit_interval(splitmix64(image ^ place))
    return (uniform.reshape(x.shape) < x).to(x.dtype)


def _wrapping_sum(words: Int64[Tensor, "B N"]) -> Int64[Tensor, "B 1"]:
    """The sum modulo 2^64, by halves of 32 bits: onnxruntime sums integers in float64, exact up to 2^53."""
    low, high = words & 0xFFFFFFFF, words >> 32
    return high.sum(1, keepdim=True) * 2**32 + low.sum(1, keepdim=True)
