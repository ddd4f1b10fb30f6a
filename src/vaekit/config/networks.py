"""Settings of encoders and decoders; each class serves both."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vaekit.config.base import BaseConfig


def _widths(value: Any) -> Any:
    """`400`, `"400,200"`, `"none"` or a list of those, as a tuple."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(text for item in items for text in str(item).replace(",", " ").split() if text != "none")


Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], BeforeValidator(_widths)]

Activation = Literal["relu", "tanh", "silu", "gelu"]


class MlpConfig(BaseConfig):
    """Fully connected layers over all pixels."""

    kind: Literal["mlp"] = "mlp"
    hidden: Widths = (400,)
    """Units of the hidden layers, from the input on; 'none' for a linear map."""
    activation: Activation = "relu"
    """Activation after every hidden layer."""


class GatedMlpConfig(BaseConfig):
    """Fully connected layers with gates: each is a linear map times the sigmoid of another."""

    kind: Literal["gated_mlp"] = "gated_mlp"
    hidden: Widths = (300, 300)
    """Units of the hidden layers, from the input on."""
    activation: ClassVar[str] = "gated"


class ConvConfig(BaseConfig):
    """Strided convolutions that halve sides of 8 pixels and more; the decoder mirrors them."""

    kind: Literal["conv"] = "conv"
    channels: int = Field(32, ge=1, le=4096)
    """Channels after the first convolution; doubled by every further one, up to 8 times as many."""
    hidden: Widths = (256,)
    """Units of the dense layers between convolutions and latent vector; 'none' for no such layer."""
    activation: Activation = "relu"
    """Activation after every layer."""


class ResnetConfig(BaseConfig):
    """Residual blocks with group normalization, and attention at the lowest resolution."""

    kind: Literal["resnet"] = "resnet"
    channels: int = Field(32, ge=8, le=4096, multiple_of=8)
    """Channels at full resolution, a multiple of 8; doubled at every halving, up to 8 times as many."""
    blocks: int = Field(1, ge=1, le=16)
    """Residual blocks at every resolution."""
    attention: bool = True
    """Self-attention between the pixels of the lowest resolution."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability inside every block."""


class DcaeConfig(BaseConfig):
    """Residual blocks at low resolution between space-to-depth and depth-to-space (DC-AE)."""

    kind: Literal["dcae"] = "dcae"
    channels: int = Field(32, ge=8, le=4096, multiple_of=8)
    """Channels at the resolution of the patches, a multiple of 8; doubled at every halving, up to 4 times as
    many."""
    blocks: int = Field(2, ge=1, le=16)
    """Residual blocks at every resolution."""


class AutoencoderKLConfig(BaseConfig):
    """The network of latent diffusion, for `vaekit export --to diffusers` (AutoencoderKL)."""

    kind: Literal["autoencoder_kl"] = "autoencoder_kl"
    channels: int = Field(32, ge=8, le=4096, multiple_of=8)
    """Channels at full resolution, a multiple of 8; doubled at every halving, up to 4 times as many."""
    blocks: int = Field(1, ge=1, le=16)
    """Residual blocks at every resolution of the encoder; the decoder has one more."""
    groups: int = Field(4, ge=1, le=1024)
    """Groups of channels that are normalized together; they divide the channels."""
    attention: bool = True
    """Self-attention between the pixels of the lowest resolution."""

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> Self:
        if self.channels % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {self.channels} channels")
        return self


class CustomConfig(BaseConfig):
    """Your own module, passed from Python: `vaekit.train(images, encoder=module, decoder=module)`."""

    kind: Literal["own"] = "own"
    name: str = ""
    """Class name of the module; filled in automatically."""


NetworkConfig = Annotated[
    MlpConfig | GatedMlpConfig | ConvConfig | ResnetConfig | DcaeConfig | AutoencoderKLConfig | CustomConfig,
    Field(discriminator="kind"),
]
