"""Settings of likelihoods."""

from typing import Annotated, Literal

from pydantic import Field

from vaekit.config.base import BaseConfig

# --- Likelihoods -----------------------------------------------------------------------------------------------------


class BernoulliLikelihoodConfig(BaseConfig):
    """Binary cross-entropy on pixels in [0, 1], from logits."""

    kind: Literal["bernoulli"] = "bernoulli"


class BinarizedLikelihoodConfig(BaseConfig):
    """A Bernoulli on black-and-white pixels, which are drawn with the gray value as the probability of white."""

    kind: Literal["binarized"] = "binarized"
    draw: Literal["step", "once"] = "step"
    """Draw the pixels of training images anew at every step, or once and for all. Others are always drawn once."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Random seed of the pixels that are drawn once; with the image itself it decides them."""


class ContinuousBernoulliLikelihoodConfig(BaseConfig):
    """The Bernoulli's curve as a normalised density on [0, 1]."""

    kind: Literal["continuous_bernoulli"] = "continuous_bernoulli"


class _LocScaleConfig(BaseConfig):
    """What the likelihoods around a location have in common."""

    sigma: Literal["fixed", "learned", "pixel", "optimal"] = "learned"
    """The noise level: fixed at --likelihood.scale; learned with the weights, one for all pixels; pixel: an output of
    the decoder for every pixel; or optimal (what maximises the likelihood, a running value of training, frozen for
    validation and use)."""
    scale: float = Field(0.1, ge=1e-3, le=10)
    """Noise level that sigma is fixed at or starts from, where pixels run from 0 to 1."""
    levels: Literal["256", "none"] = "256"
    """256: probabilities of the 256 levels of a pixel, so that bits/dim are real. none: a plain density."""


class GaussianLikelihoodConfig(_LocScaleConfig):
    """A Gaussian around the decoder's output; its scale is the standard deviation."""

    kind: Literal["gaussian"] = "gaussian"


class LaplaceLikelihoodConfig(_LocScaleConfig):
    """A Laplace distribution around the decoder's output; its scale is the mean absolute deviation."""

    kind: Literal["laplace"] = "laplace"


class LogisticMixtureLikelihoodConfig(BaseConfig):
    """A mixture of logistics over the 256 levels, each colour given those before it (PixelCNN++)."""

    kind: Literal["logistic_mixture"] = "logistic_mixture"
    components: int = Field(5, ge=1, le=64)
    """Logistics in the mixture of every pixel."""


LikelihoodConfig = Annotated[
    BernoulliLikelihoodConfig
    | BinarizedLikelihoodConfig
    | ContinuousBernoulliLikelihoodConfig
    | GaussianLikelihoodConfig
    | LaplaceLikelihoodConfig
    | LogisticMixtureLikelihoodConfig,
    Field(discriminator="kind"),
]
