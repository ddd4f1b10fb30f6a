"""Likelihoods p(x | z): from the decoder's output [S, B, outputs, H, W] to distributions of images."""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import constraints

from vaekit.config.base import BaseConfig
from vaekit.config.likelihoods import (
    BinarizedLikelihoodConfig,
    LocScaleConfig,
    LogisticMixtureLikelihoodConfig,
)
from vaekit.errors import UserError, setting
from vaekit.models.distributions.discretized import LAPLACE, NORMAL, LocScaleFamily, clamp_straight_through
from vaekit.models.distributions.logistic_mixture import LATTICE_MULTIPLIERS, PixelMixture
from vaekit.models.distributions.pixels import (
    DiscretizedLocScale,
    LevelSupport,
    LocScale,
    PixelBernoulli,
    PixelContinuousBernoulli,
    deterministic_binarize,
)
from vaekit.models.interfaces import Image, Likelihood, Output
from vaekit.models.registry import BuildContext, Capability, register
from vaekit.models.terms import Images

MIN_SIGMA = 1 / 255 / 8
"""An eighth of a level: below it a discretized distribution puts all its probability on one level."""

MAX_SIGMA = 10.0
"""Ten times the range of a pixel: above it only the end levels remain, with probability one half each."""

SIGMA_IMAGES = 8
"""Images of a batch, about, from whose errors an optimal sigma follows."""
MIN_MEAN = 1e-3
"""Initial means stay this far from black and white, where a pixel would give no gradient."""


def _bound_log_sigma(log_sigma: Tensor) -> Tensor:
    return clamp_straight_through(log_sigma, math.log(MIN_SIGMA), math.log(MAX_SIGMA))


@register("likelihood", "bernoulli")
class Bernoulli(Likelihood):
    """Binary cross-entropy on [0, 1], from logits: the likelihood of the classic VAE.

    Not normalized over gray levels, so its bound is not a log-likelihood of them and bits/dim are undefined.
    """

    support = constraints.unit_interval
    provides = frozenset({Capability.IMPORTANCE_WEIGHTABLE})
    likelihood_kind: Literal["probability", "density"] = "probability"

    def __init__(self, settings: BaseConfig, context: BuildContext) -> None:
        super().__init__()
        self.outputs = context.shape[0]

    def forward(self, output: Output, x: Images | None = None) -> PixelBernoulli:
        return PixelBernoulli(output)

    def inverse_mean(self, mean: Image) -> Image:
        return torch.logit(mean, MIN_MEAN)


@register("likelihood", "binarized")
class Binarized(Bernoulli):
    """A Bernoulli on pixels that are white with the gray value as probability: a true probability.

    The protocol of Salakhutdinov & Murray 2008 ("On the quantitative analysis of deep belief networks"). With
    draw `step`, training pixels are sampled at every step (Burda et al. 2016, arXiv:1509.00519). With `once`,
    and always for validation and use, they are fixed by a hash of `seed` and the image.
    """

    def __init__(self, settings: BinarizedLikelihoodConfig, context: BuildContext) -> None:
        super().__init__(settings, context)
        self.draw, self.seed = settings.draw, settings.seed

    @torch.no_grad()
    def prepare_target(self, x: Images) -> Images:
        """Binarized pixels; black-and-white images are unchanged."""
        if self.training and self.draw == "step":
            return (torch.rand_like(x) < x).to(x.dtype)  # four times as fast as torch.bernoulli
        return deterministic_binarize(x, self.seed)


@register("likelihood", "continuous_bernoulli")
class ContinuousBernoulli(Bernoulli):
    """The Bernoulli normalized as a density (Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845)."""

    likelihood_kind = "density"

    def forward(self, output: Output, x: Images | None = None) -> PixelContinuousBernoulli:
        return PixelContinuousBernoulli(output)

    def inverse_mean(self, mean: Image) -> Image:
        """By bisection over logits from -60 to 60, where the mean is 1/60 from black or white."""
        low, high = torch.full_like(mean, -60.0), torch.full_like(mean, 60.0)
        for _ in range(30):
            middle = (low + high) / 2
            below = PixelContinuousBernoulli(middle[None]).mean[0] < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


class LocScaleLikelihood(Likelihood):
    """Noise around the decoder's output, discretized to 256 levels or as a density. Its scale sigma is

    - `fixed` at `scale`, or `learned` as one value for all pixels;
    - `pixel`: log sigma is log `scale` + a further output of the decoder for every pixel and channel;
    - `optimal`: the value that maximizes the likelihood. For a density this is the root mean squared error,
      for the Laplace the mean absolute error (Rybkin et al. 2021, arXiv:2006.13202; here a running average
      over training). With 256 levels, where rounding and clipping hide part of the error, its expectation is
      used, which is the EM step for sigma (Dempster et al. 1977). It is updated in training mode when images
      `x` are given. All samples of z have equal weight in it, which suits an ELBO but not importance weights.
    """

    MOMENTUM = 0.95
    provides = frozenset({Capability.NORMALIZED, Capability.IMPORTANCE_WEIGHTABLE})
    noise: ClassVar[LocScaleFamily]
    log_sigma: Tensor
    mean_power: Tensor
    weight: Tensor

    def __init__(self, settings: LocScaleConfig, context: BuildContext) -> None:
        super().__init__()
        self.sigma, self.discrete = settings.sigma, settings.levels == "256"
        self.outputs = context.shape[0] * (2 if self.sigma == "pixel" else 1)
        self.support = LevelSupport() if self.discrete else constraints.real
        self.likelihood_kind = "probability" if self.discrete else "density"
        if not self.discrete:
            self.provides -= {Capability.NORMALIZED}
        start = torch.tensor(math.log(settings.scale))
        if self.sigma == "learned":
            self.log_sigma = nn.Parameter(start)
        else:
            self.register_buffer("log_sigma", start)
        if self.sigma == "optimal":
            self.provides -= {Capability.IMPORTANCE_WEIGHTABLE}
            self.supports_accumulation = False
            self.register_buffer("mean_power", torch.zeros(()))
            self.register_buffer("weight", torch.zeros(()))  # of the running mean, which starts at 0

    def forward(self, output: Output, x: Images | None = None) -> LocScale:
        log_sigma = self.log_sigma
        if self.sigma == "pixel":
            output, pixel_log_sigma = output.chunk(2, dim=-3)
            log_sigma = log_sigma + pixel_log_sigma
        loc = torch.sigmoid(output) if self.discrete else output
        if self.sigma == "optimal" and self.training and x is not None:
            every = max(1, len(x) // SIGMA_IMAGES)
            some = self._distribution(loc.detach()[:, ::every], log_sigma)
            self._update_sigma(some.expected_power(x[::every]).mean())
        return self._distribution(loc, log_sigma)

    def inverse_mean(self, mean: Image) -> Image:
        output = torch.logit(mean, MIN_MEAN) if self.discrete else mean
        return torch.cat([output, torch.zeros_like(output)]) if self.sigma == "pixel" else output

    def _distribution(self, loc: Tensor, log_sigma: Tensor) -> LocScale:
        make = DiscretizedLocScale if self.discrete else LocScale
        return make(loc, _bound_log_sigma(log_sigma), self.noise)

    @torch.no_grad()
    def _update_sigma(self, mean_power: Float[Tensor, ""]) -> None:
        self.mean_power.lerp_(mean_power.float(), 1 - self.MOMENTUM)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.MOMENTUM)
        power = self.noise.power
        self.log_sigma.copy_((self.mean_power / self.weight).clamp(min=MIN_SIGMA**power).log() / power)


@register("likelihood", "gaussian")
class Gaussian(LocScaleLikelihood):
    """A normal distribution around the decoder's output; sigma is the standard deviation."""

    noise = NORMAL


@register("likelihood", "laplace")
class Laplace(LocScaleLikelihood):
    """A Laplace distribution around the decoder's output; sigma is the mean absolute deviation."""

    noise = LAPLACE


@register("likelihood", "logistic_mixture")
class LogisticMixture(Likelihood):
    """A mixture of logistics over the 256 levels, each channel given the previous ones (Salimans et al. 2017,
    PixelCNN++, arXiv:1701.05517, sections 2.1 and 2.2).

    The outputs of a pixel, for K components and C channels: K logits of the weights, C x K locations, C x K
    log-scales and C(C-1)/2 x K couplings, which pass through tanh. Component k's locations are its outputs +
    (k + 1/2) / K, so that components start spread over [0, 1].
    """

    INITIAL_SCALE = 0.1
    support = LevelSupport()
    provides = frozenset({Capability.NORMALIZED, Capability.IMPORTANCE_WEIGHTABLE})
    likelihood_kind = "probability"
    offsets: Tensor

    def __init__(self, settings: LogisticMixtureLikelihoodConfig, context: BuildContext) -> None:
        super().__init__()
        channels, components = context.shape[0], settings.components
        if channels > len(LATTICE_MULTIPLIERS):
            limit = f"at most {len(LATTICE_MULTIPLIERS)} channels (got {channels})"
            hint = f"Use {setting('likelihood.kind', 'gaussian')}."
            raise UserError(f"The likelihood 'logistic_mixture' supports {limit}.", hint)
        self.components = components
        pairs = channels * (channels - 1) // 2
        self.sizes = [components * n for n in (1, channels, channels, pairs)]
        self.outputs = sum(self.sizes)
        offsets = (torch.arange(components) + 0.5) / components
        self.register_buffer("offsets", offsets.reshape(-1, 1, 1), persistent=False)

    def forward(self, output: Output, x: Images | None = None) -> PixelMixture:
        logits, *rest = output.split(self.sizes, dim=-3)
        loc, log_sigma, coupling = (t.unflatten(-3, (-1, self.components)) for t in rest)
        log_sigma = _bound_log_sigma(log_sigma + math.log(self.INITIAL_SCALE))
        return PixelMixture(logits, loc + self.offsets, log_sigma, torch.tanh(coupling))

    def inverse_mean(self, mean: Image) -> Image:
        """Components are spread around the mean as they are around 1/2 at outputs of zero."""
        logits, _, log_sigma, coupling = (mean.new_zeros(size, *mean.shape[1:]) for size in self.sizes)
        return torch.cat([logits, (mean - 0.5).repeat_interleave(self.components, 0), log_sigma, coupling])
