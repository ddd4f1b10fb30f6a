"""Settings of posteriors and priors."""

from typing import Annotated, Literal

from pydantic import Field

from vaekit.config.base import BaseConfig
from vaekit.config.networks import Widths


class GaussianPosteriorConfig(BaseConfig):
    """A Gaussian with diagonal covariance."""

    kind: Literal["gaussian"] = "gaussian"


class ClippedGaussianPosteriorConfig(BaseConfig):
    """A Gaussian with diagonal covariance and log-variances from -30 to 20, as in latent diffusion."""

    kind: Literal["clipped_gaussian"] = "clipped_gaussian"


class FullGaussianPosteriorConfig(BaseConfig):
    """A Gaussian with full covariance."""

    kind: Literal["full_gaussian"] = "full_gaussian"


class FlowPosteriorConfig(BaseConfig):
    steps: int = Field(4, ge=1, le=64)
    """Number of transformations."""
    hidden: Widths = (128,)
    """Units of the hidden layers of every transformation."""
    context: int = Field(64, ge=1, le=4096)
    """Size of the summary of the image that conditions every transformation."""


class IafPosteriorConfig(FlowPosteriorConfig):
    """An inverse autoregressive flow over a Gaussian; its density is known at its own samples only."""

    kind: Literal["iaf"] = "iaf"


class NsfPosteriorConfig(FlowPosteriorConfig):
    """A neural spline flow (coupling layers) over a Gaussian."""

    kind: Literal["nsf"] = "nsf"
    bins: int = Field(8, ge=2, le=64)
    """Bins of every spline."""


class DeltaPosteriorConfig(BaseConfig):
    """A single point: an autoencoder without noise."""

    kind: Literal["delta"] = "delta"


class NormalPriorConfig(BaseConfig):
    """The standard normal."""

    kind: Literal["normal"] = "normal"


class MixturePriorConfig(BaseConfig):
    """A learned mixture of Gaussians."""

    kind: Literal["mixture"] = "mixture"
    components: int = Field(100, ge=1, le=65536)
    """Number of Gaussians."""


class VampPriorConfig(BaseConfig):
    """The mixture of the posteriors of learned pseudo-inputs, which start as training images."""

    kind: Literal["vamp"] = "vamp"
    components: int = Field(500, ge=1, le=65536)
    """Number of pseudo-inputs."""


class FlowPriorConfig(BaseConfig):
    """A learned normalizing flow of coupling layers."""

    kind: Literal["flow"] = "flow"
    transform: Literal["realnvp", "spline"] = "realnvp"
    """Coupling transformation: scale and shift (RealNVP), or a monotonic spline."""
    steps: int = Field(6, ge=1, le=64)
    """Number of transformations."""
    hidden: Widths = (256,)
    """Units of the hidden layers of every transformation."""


class ClassPriorConfig(BaseConfig):
    """One learned Gaussian per class, for conditional models."""

    kind: Literal["class"] = "class"


class FlowMatchingConfig(BaseConfig):
    """The second stage: a generative model of the latents, trained after the autoencoder."""

    steps: int = Field(0, ge=0, le=10_000_000)
    """Training steps; 0 for as many as take as long as the first stage."""
    channels: int = Field(64, ge=8, le=4096, multiple_of=8)
    """Channels of the network at the size of the latents; twice as many at half of it."""
    blocks: int = Field(2, ge=1, le=16)
    """Residual blocks at every size."""
    batch_size: int = Field(32, ge=1, le=65536)
    """Images per step."""
    learning_rate: float = Field(2e-3, gt=0, le=1)
    """Peak learning rate."""


PosteriorConfig = Annotated[
    GaussianPosteriorConfig
    | ClippedGaussianPosteriorConfig
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
