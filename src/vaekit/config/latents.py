"""Settings of posteriors and priors."""

from typing import Annotated, Literal

from pydantic import Field

from vaekit.config.base import BaseConfig
from vaekit.config.networks import Widths

# --- Posteriors ------------------------------------------------------------------------------------------------------


class GaussianPosteriorConfig(BaseConfig):
    """A Gaussian with diagonal covariance."""

    kind: Literal["gaussian"] = "gaussian"


class FullGaussianPosteriorConfig(BaseConfig):
    """A Gaussian with full covariance, from its Cholesky factor."""

    kind: Literal["full_gaussian"] = "full_gaussian"


class _FlowPosteriorConfig(BaseConfig):
    steps: int = Field(4, ge=1, le=64)
    """Transformations, one after another."""
    hidden: Widths = (128,)
    """Widths of the hidden layers in every step, in units."""
    context: int = Field(64, ge=1, le=4096)
    """Width of the summary of the image that every step sees."""


class IafPosteriorConfig(_FlowPosteriorConfig):
    """A Gaussian bent by inverse autoregressive steps; its density is known at its own samples only."""

    kind: Literal["iaf"] = "iaf"


class NsfPosteriorConfig(_FlowPosteriorConfig):
    """A Gaussian bent by coupling steps of monotonic splines."""

    kind: Literal["nsf"] = "nsf"
    bins: int = Field(8, ge=2, le=64)
    """Pieces of every spline."""


class DeltaPosteriorConfig(BaseConfig):
    """A single point: the encoder of an autoencoder, without noise."""

    kind: Literal["delta"] = "delta"


# --- Priors ----------------------------------------------------------------------------------------------------------


class NormalPriorConfig(BaseConfig):
    """The standard normal."""

    kind: Literal["normal"] = "normal"


class MixturePriorConfig(BaseConfig):
    """A learned mixture of Gaussians."""

    kind: Literal["mixture"] = "mixture"
    components: int = Field(100, ge=1, le=65536)
    """Gaussians in the mixture."""


class VampPriorConfig(BaseConfig):
    """A mixture of the posteriors of learned pseudo-inputs, started from training images."""

    kind: Literal["vamp"] = "vamp"
    components: int = Field(500, ge=1, le=65536)
    """Pseudo-inputs, each giving a component of the mixture."""


class FlowPriorConfig(BaseConfig):
    """A learned normalising flow of coupling steps."""

    kind: Literal["flow"] = "flow"
    transform: Literal["realnvp", "spline"] = "realnvp"
    """What a step does to a half of the latents, given the other: scale and shift, or a monotonic spline."""
    steps: int = Field(6, ge=1, le=64)
    """Transformations, one after another."""
    hidden: Widths = (256,)
    """Widths of the hidden layers in every step, in units."""


class ClassPriorConfig(BaseConfig):
    """One learned Gaussian per class; needs --conditional."""

    kind: Literal["class"] = "class"


PosteriorConfig = Annotated[
    GaussianPosteriorConfig
    | FullGaussianPosteriorConfig
    | IafPosteriorConfig
    | NsfPosteriorConfig
    | DeltaPosteriorConfig,
    Field(discriminator="kind"),
]


PriorConfig = Annotated[
    NormalPriorConfig | MixturePriorConfig | VampPriorConfig | FlowPriorConfig | ClassPriorConfig,
    Field(discriminator="kind"),
]
