"""Settings of objectives."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vaekit.config.base import BaseConfig
from vaekit.errors import setting


class ElboConfig(BaseConfig):
    """Reconstruction + beta * KL, in nats per image."""

    kind: Literal["elbo"] = "elbo"
    beta: float = Field(1.0, ge=0, le=10_000)
    """Weight of the KL divergence; 1 gives the evidence lower bound."""
    warmup: float = Field(0.0, ge=0)
    """Epochs over which beta (or the capacity, if set) rises linearly from 0."""
    cycles: int = Field(1, ge=1, le=1_000)
    """Number of warm-ups; between two of them beta stays at its value for as many epochs."""
    free_bits: float = Field(0.0, ge=0, le=1_000)
    """Nats of KL per latent that are free (Kingma et al. 2016)."""
    capacity: float = Field(0.0, ge=0, le=100_000)
    """Target for the KL in nats per image: the loss has beta * |KL - capacity|; 0 for none."""
    samples: int = Field(1, ge=1, le=10_000)
    """Latent samples per image in every training step."""

    @model_validator(mode="after")
    def _one_target(self) -> "ElboConfig":
        if self.free_bits and self.capacity:
            raise ValueError("free_bits and capacity exclude each other, so set one of them")
        if self.cycles > 1 and not self.warmup:
            raise ValueError(f"several cycles need a warm-up, so set {setting('objective.warmup')}")
        return self


class IwaeConfig(BaseConfig):
    """The importance-weighted bound."""

    kind: Literal["iwae"] = "iwae"
    samples: int = Field(5, ge=1, le=10_000)
    """Latent samples per image in every training step."""


class DregConfig(BaseConfig):
    """The importance-weighted bound, with doubly reparameterized gradients for the encoder."""

    kind: Literal["dreg"] = "dreg"
    samples: int = Field(5, ge=1, le=10_000)
    """Latent samples per image in every training step."""


class MiwaeConfig(BaseConfig):
    """The mean of several importance-weighted bounds."""

    kind: Literal["miwae"] = "miwae"
    samples: int = Field(16, ge=1, le=10_000)
    """Latent samples per image in every training step, divided among the bounds."""
    bounds: int = Field(4, ge=1, le=10_000)
    """Number of bounds to average; it divides samples."""

    @model_validator(mode="after")
    def _shared_out(self) -> "MiwaeConfig":
        if self.samples % self.bounds:
            raise ValueError(f"samples should be a multiple of bounds ({self.bounds}), got {self.samples}")
        return self


class MmdConfig(BaseConfig):
    """Reconstruction + weight * MMD between encodings and prior (+ beta * KL): Wasserstein and Info-VAE."""

    kind: Literal["mmd"] = "mmd"
    weight: float = Field(100.0, ge=0, le=1e9)
    """Weight of the maximum mean discrepancy (0 to 2), the mean over its scales; the WAE authors sum
    seven."""
    beta: float = Field(0.0, ge=0, le=10_000)
    """Weight of the KL divergence."""
    kernel: Literal["imq", "rbf"] = "imq"
    """Kernel: inverse multiquadric (heavy tails) or Gaussian."""


class TotalCorrelationConfig(BaseConfig):
    """Reconstruction + the three terms of the KL, each with its weight (beta-TC-VAE)."""

    kind: Literal["total_correlation"] = "total_correlation"
    alpha: float = Field(1.0, ge=0, le=10_000)
    """Weight of the mutual information between image and latents."""
    beta: float = Field(6.0, ge=0, le=10_000)
    """Weight of the total correlation among latents."""
    gamma: float = Field(1.0, ge=0, le=10_000)
    """Weight of the KL between every latent's aggregate posterior and its prior."""


class DipConfig(BaseConfig):
    """The ELBO + a penalty on the covariance of the latents (DIP-VAE)."""

    kind: Literal["dip"] = "dip"
    variant: Literal["1", "2"] = "1"
    """1: covariance of the posterior means; 2: of the latents, including the posterior variance."""
    off_diagonal: float = Field(10.0, ge=0, le=1e6)
    """Weight of the squared covariances between latents."""
    diagonal: float = Field(100.0, ge=0, le=1e6)
    """Weight of the squared differences of the variances from 1."""


class L2Config(BaseConfig):
    """Reconstruction + weight * |z|^2 / 2: regularized and plain autoencoders."""

    kind: Literal["l2"] = "l2"
    weight: float = Field(1.0, ge=0, le=1e6)
    """Weight of half the squared length of the latents; 0 for a plain autoencoder."""


ObjectiveConfig = Annotated[
    ElboConfig
    | IwaeConfig
    | DregConfig
    | MiwaeConfig
    | MmdConfig
    | TotalCorrelationConfig
    | DipConfig
    | L2Config,
    Field(discriminator="kind"),
]
