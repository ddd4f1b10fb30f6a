"""Settings of encoders and decoders: each class serves an encoder and the decoder that mirrors it."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vaekit.config.base import BaseConfig


def _widths(value: Any) -> Any:
    """`400`, `"400,200"`, `"none"` or a list of those, as a tuple: what a person would type."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(word for item in items for word in str(item).replace(",", " ").split() if word != "none")


Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], BeforeValidator(_widths)]


Activation = Literal["relu", "tanh", "silu", "gelu"]


# --- Networks: each settings class serves an encoder and the decoder that mirrors it ---------------------------------


class MlpConfig(BaseConfig):
    """Fully connected layers over all pixels."""

    kind: Literal["mlp"] = "mlp"
    hidden: Widths = (400,)
    """Widths of the hidden layers, from the input on, in units; 'none' for a linear map."""
    activation: Activation = "relu"
    """Nonlinearity after every hidden layer."""


class GatedMlpConfig(BaseConfig):
    """Fully connected layers, each the product of a linear map and a sigmoid of another."""

    kind: Literal["gated_mlp"] = "gated_mlp"
    hidden: Widths = (300, 300)
    """Widths of the hidden layers, from the input on, in units."""


class ConvConfig(BaseConfig):
    """Strided convolutions that halve the image until its sides are below 8 pixels; the decoder mirrors them."""

    kind: Literal["conv"] = "conv"
    channels: int = Field(32, ge=1, le=4096)
    """Channels after the first convolution, doubled by every further one until there are 8 times as many."""
    hidden: Widths = (256,)
    """Widths of the dense layers between the convolutions and the latent space, in units; 'none' for no such layer. A
    latent image has none."""
    activation: Activation = "relu"
    """Nonlinearity after every layer."""


class ResnetConfig(BaseConfig):
    """Residual blocks with group normalisation, attention at the lowest resolution, nearest-neighbour upsampling."""

    kind: Literal["resnet"] = "resnet"
    channels: int = Field(32, ge=8, le=4096, multiple_of=8)
    """Channels at full resolution, doubled at every halving until there are 8 times as many; a multiple of 8."""
    blocks: int = Field(1, ge=1, le=16)
    """Residual blocks at every resolution."""
    attention: bool = True
    """Self-attention between the pixels of the lowest resolution."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations dropped inside every block while training."""


class CustomConfig(BaseConfig):
    """A module of your own, given from Python: `vaekit.train(images, encoder=module, decoder=module)`."""

    kind: Literal["own"] = "own"
    name: str = ""
    """What the module is called; filled in from its class."""


NetworkConfig = Annotated[
    MlpConfig | GatedMlpConfig | ConvConfig | ResnetConfig | CustomConfig, Field(discriminator="kind")
]
