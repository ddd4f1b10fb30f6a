"""p(x | z): from the decoder's output [S, B, outputs, H, W] to a distribution over images [C, H, W].

`inverse_mean` is the other way round: the output whose distribution has a given mean, where a decoder starts.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import constraints

from vaekit.config.base import BaseConfig
from vaekit.config.likelihoods import (
    BinarizedLikelihoodConfig,
    GaussianLikelihoodConfig,
    LaplaceLikelihoodConfig,
    LogisticMixtureLikelihoodConfig,
)
from vaekit.errors import UserError
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
from vaekit.models.interfaces import Likelihood
from vaekit.models.registry import BuildContext, Capability, register

MIN_SIGMA = 1 / 255 / 8
"""An eighth of a level: below it a discretised distribution can no longer tell its neighbours apart."""


MAX_SIGMA = 10.0
"""Ten times the range of a pixel: above it nothing is left but the end levels, one half each."""


MIN_MEAN = 1e-3
"""No first mean is nearer to black or white: a pixel that is always black gives no slope to learn from otherwise."""


def _bound_log_sigma(log_sigma: Tensor) -> Tensor:
    return clamp_straight_through(log_sigma, math.log(MIN_SIGMA), math.log(MAX_SIGMA))


@register("likelihood", "bernoulli")
class Bernoulli(Likelihood):
    """Binary cross-entropy on [0, 1], from logits: the likelihood of the classic VAE.

    Not normalised over grey levels, so its bound is no log-likelihood of them and has no bits/dim.
    """

    support = constraints.unit_interval
    provides = frozenset({Capability.IMPORTANCE_WEIGHTABLE})
    likelihood_kind: Literal["probability", "density"] = "probability"

    def __init__(self, settings: BaseConfig, context: BuildContext) -> None:
        super().__init__()
        self.outputs = context.shape[0]

    def forward(self, output: Float[Tensor, "*S B C H W"], x: Float[Tensor, "B C H W"] | None = None) -> PixelBernoulli:
        return PixelBernoulli(output)

    def inverse_mean(self, mean: Float[Tensor, "C H W"]) -> Float[Tensor, "outputs H W"]:
        return torch.logit(mean, MIN_MEAN)


@register("likelihood", "binarized")
class Binarized(Bernoulli):
    """A Bernoulli on black-and-white pixels, drawn with the gray value as the probability of white: a true probability.

    The protocol of Salakhutdinov & Murray 2008 ("On the quantitative analysis of deep belief networks"): with draw
    `step` anew at every training step (Burda et al. 2016, arXiv:1509.00519), with `once`, and always for validation and
    use, by a hash of `seed` and the image, so that an image has the same black-and-white pixels wherever it is met.
    """

    def __init__(self, settings: BinarizedLikelihoodConfig, context: BuildContext) -> None:
        super().__init__(settings, context)
        self.draw, self.seed = settings.draw, settings.seed

    @torch.no_grad()
    def prepare_target(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """What is observed of an image: pixels 0 and 1. An image that has no others is returned as it is."""
        if self.training and self.draw == "step":
            return (torch.rand_like(x) < x).to(x.dtype)  # at a quarter of the cost of torch.bernoulli
        return deterministic_binarize(x, self.seed)


@register("likelihood", "continuous_bernoulli")
class ContinuousBernoulli(Bernoulli):
    """The Bernoulli's curve as a density on [0, 1] (Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845), from logits."""

    likelihood_kind = "density"

    def forward(
        self, output: Float[Tensor, "*S B C H W"], x: Float[Tensor, "B C H W"] | None = None
    ) -> PixelContinuousBernoulli:
        return PixelContinuousBernoulli(output)

    def inverse_mean(self, mean: Float[Tensor, "C H W"]) -> Float[Tensor, "outputs H W"]:
        """By bisection; the mean is 1/60 from black or white at the ends."""
        low, high = torch.full_like(mean, -60.0), torch.full_like(mean, 60.0)
        for _ in range(30):
            middle = (low + high) / 2
            below = PixelContinuousBernoulli(middle[None]).mean[0] < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


# --- Noise around a location -----------------------------------------------------------------------------------------


class LocScaleLikelihood(Likelihood):
    """Noise around the decoder's output, over 256 levels or as a plain density; a subclass says which noise.

    sigma, its scale: `fixed` at `scale`; `learned` with the weights, one for all pixels; `pixel`: its logarithm is
    log `scale` + a further output of the decoder for every pixel and channel; or `optimal`: the value that maximises
    the likelihood, which for a density is the root of the mean squared error, or for the Laplace the mean absolute
    error (Rybkin et al. 2021, arXiv:2006.13202, here over a running window of training instead of one batch). Over 256
    levels, where rounding and clipping hide a part of each error, its expectation takes its place, which is the EM step
    for sigma (Dempster et al. 1977). It moves while the module trains on images `x` and is frozen otherwise. All
    samples of z count alike in it, which is right for an ELBO and wrong for importance weights.
    """

    MOMENTUM = 0.99
    provides = frozenset({Capability.NORMALIZED, Capability.IMPORTANCE_WEIGHTABLE})
    noise: ClassVar[LocScaleFamily]
    log_sigma: Tensor
    mean_power: Tensor
    weight: Tensor

    def __init__(self, settings: GaussianLikelihoodConfig | LaplaceLikelihoodConfig, context: BuildContext) -> None:
        super().__init__()
        self.sigma, self.discrete = settings.sigma, settings.levels == "256"
        self.outputs = context.shape[0] * (2 if self.sigma == "pixel" else 1)
        self.support = LevelSupport() if self.discrete else constraints.real
        self.likelihood_kind = "probability" if self.discrete else "density"
        if not self.discrete:
            self.provides -= {Capability.NORMALIZED}
        if self.sigma == "optimal":
            self.provides -= {Capability.IMPORTANCE_WEIGHTABLE}
            self.supports_accumulation = False
        start = torch.tensor(math.log(settings.scale))
        if self.sigma == "learned":
            self.log_sigma = nn.Parameter(start)
        else:
            self.register_buffer("log_sigma", start)
        if self.sigma == "optimal":
            self.register_buffer("mean_power", torch.zeros(()))
            self.register_buffer("weight", torch.zeros(()))  # of what the running mean has seen: it starts from 0

    def forward(self, output: Float[Tensor, "*S B outputs H W"], x: Float[Tensor, "B C H W"] | None = None) -> LocScale:
        pixel_log_sigma: Tensor | None = None
        if self.sigma == "pixel":
            output, pixel_log_sigma = output.chunk(2, dim=-3)
        loc = torch.sigmoid(output) if self.discrete else output
        if self.sigma == "optimal" and self.training and x is not None:
            self._update_sigma(self._distribution(loc.detach()).expected_power(x).mean())
        return self._distribution(loc, pixel_log_sigma)

    def inverse_mean(self, mean: Float[Tensor, "C H W"]) -> Float[Tensor, "outputs H W"]:
        output = torch.logit(mean, MIN_MEAN) if self.discrete else mean
        return torch.cat([output, torch.zeros_like(output)]) if self.sigma == "pixel" else output

    def _distribution(self, loc: Tensor, pixel_log_sigma: Tensor | None = None) -> LocScale:
        log_sigma = _bound_log_sigma(self.log_sigma if pixel_log_sigma is None else self.log_sigma + pixel_log_sigma)
        return (DiscretizedLocScale if self.discrete else LocScale)(loc, log_sigma, self.noise)

    @torch.no_grad()
    def _update_sigma(self, mean_power: Float[Tensor, ""]) -> None:
        self.mean_power.lerp_(mean_power.float(), 1 - self.MOMENTUM)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.MOMENTUM)
        power = self.noise.power
        self.log_sigma.copy_((self.mean_power / self.weight).clamp(min=MIN_SIGMA**power).log() / power)


@register("likelihood", "gaussian")
class Gaussian(LocScaleLikelihood):
    """A normal around the decoder's output; sigma is its standard deviation."""

    noise = NORMAL


@register("likelihood", "laplace")
class Laplace(LocScaleLikelihood):
    """A Laplace distribution around the decoder's output; sigma is its mean absolute deviation."""

    noise = LAPLACE


@register("likelihood", "logistic_mixture")
class LogisticMixture(Likelihood):
    """A mixture of logistics over the 256 levels, every colour given those before it (Salimans et al. 2017, PixelCNN++,
    arXiv:1701.05517, section 2.1 and 2.2).

    Outputs of a pixel, K components and C channels: K logits of the weights, then C x K locations, C x K log-scales and
    C(C-1)/2 x K couplings, which pass through tanh. Component k's locations are its outputs + (k + 1/2) / K, so that a
    decoder whose outputs are near zero starts with components spread over [0, 1]; scales start at 0.1.
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
            raise UserError(
                f"The likelihood 'logistic_mixture' knows up to {len(LATTICE_MULTIPLIERS)} channels, not {channels}: "
                "take --likelihood.kind gaussian."
            )
        self.components = components
        pairs = channels * (channels - 1) // 2
        self.sizes = [components * n for n in (1, channels, channels, pairs)]
        self.outputs = sum(self.sizes)
        offsets = (torch.arange(components) + 0.5) / components
        self.register_buffer("offsets", offsets.reshape(-1, 1, 1), persistent=False)

    def forward(
        self, output: Float[Tensor, "*S B outputs H W"], x: Float[Tensor, "B C H W"] | None = None
    ) -> PixelMixture:
        logits, *rest = output.split(self.sizes, dim=-3)
        loc, log_sigma, coupling = (t.unflatten(-3, (-1, self.components)) for t in rest)
        log_sigma = _bound_log_sigma(log_sigma + math.log(self.INITIAL_SCALE))
        return PixelMixture(logits, loc + self.offsets, log_sigma, torch.tanh(coupling))

    def inverse_mean(self, mean: Float[Tensor, "C H W"]) -> Float[Tensor, "outputs H W"]:
        """Components spread around the mean as they are around 1/2 at outputs of zero."""
        logits, _, log_sigma, coupling = (mean.new_zeros(size, *mean.shape[1:]) for size in self.sizes)
        return torch.cat([logits, (mean - 0.5).repeat_interleave(self.components, 0), log_sigma, coupling])
