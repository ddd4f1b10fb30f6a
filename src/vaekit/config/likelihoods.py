"""Settings of likelihoods."""

from typing import Annotated, Literal

from pydantic import Field

from vaekit.config.base import BaseConfig


class BernoulliLikelihoodConfig(BaseConfig):
    """Binary cross-entropy on pixels in [0, 1], from logits."""

    kind: Literal["bernoulli"] = "bernoulli"


class BinarizedLikelihoodConfig(BaseConfig):
    """A Bernoulli on binarized pixels, sampled with the gray value as the probability of white."""

    kind: Literal["binarized"] = "binarized"
    draw: Literal["step", "once"] = "step"
    """Binarize training pixels again at every step, or once. Validation pixels are always drawn once."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Random seed of pixels that are drawn once."""


class ContinuousBernoulliLikelihoodConfig(BaseConfig):
    """The Bernoulli normalized as a density on [0, 1]."""

    kind: Literal["continuous_bernoulli"] = "continuous_bernoulli"


class LocScaleConfig(BaseConfig):
    """Settings that likelihoods with noise around a location share."""

    sigma: Literal["fixed", "learned", "pixel", "optimal"] = "learned"
    """Noise level: fixed (at scale); learned (one for all pixels); pixel (a decoder output per pixel);
    optimal (a running maximum-likelihood estimate, for objectives without importance weights)."""
    scale: float = Field(0.1, ge=1e-3, le=10)
    """Fixed or initial noise level, for pixels in [0, 1]."""
    levels: Literal["256", "none"] = "256"
    """256: discretized likelihood (bits/dim are meaningful). none: a density."""


class GaussianLikelihoodConfig(LocScaleConfig):
    """A Gaussian around the decoder's output; the noise level is its standard deviation."""

    kind: Literal["gaussian"] = "gaussian"


class LaplaceLikelihoodConfig(LocScaleConfig):
    """A Laplace distribution around the decoder's output; the noise level is its mean absolute deviation."""

    kind: Literal["laplace"] = "laplace"


class LogisticMixtureLikelihoodConfig(BaseConfig):
    """A mixture of logistics over the 256 levels, autoregressive over channels (PixelCNN++)."""

    kind: Literal["logistic_mixture"] = "logistic_mixture"
    components: int = Field(5, ge=1, le=64)
    """Logistics per pixel."""


LikelihoodConfig = Annotated[
    BernoulliLikelihoodConfig
    | BinarizedLikelihoodConfig
    | ContinuousBernoulliLikelihoodConfig
    | GaussianLikelihoodConfig
    | LaplaceLikelihoodConfig
    | LogisticMixtureLikelihoodConfig,
    Field(discriminator="kind"),
]
