"""The whole configuration of a run: one validated tree, free of torch.

The same names everywhere: a flag `--objective.beta 4`, a TOML table `[objective] beta = 4`, a Python argument
`objective={"beta": 4}`, and `config.json` of a run. A part's settings class and the part itself (in `parts/`) are tied
by `kind`; the fields of the class are the keyword arguments of the part.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator


class Settings(BaseModel):
    """Immutable, and strict about names: an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def _widths(value: Any) -> Any:
    """`400`, `"400,200"`, `"none"` or a list of those, as a tuple: what a person would type."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(word for item in items for word in str(item).replace(",", " ").split() if word != "none")


Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], BeforeValidator(_widths)]
Activation = Literal["relu", "tanh", "silu", "gelu"]


# --- Networks: each settings class serves an encoder and the decoder that mirrors it ---------------------------------


class Mlp(Settings):
    """Fully connected layers over all pixels."""

    kind: Literal["mlp"] = "mlp"
    hidden: Widths = (400,)
    """Widths of the hidden layers, from the input on, in units; 'none' for a linear map."""
    activation: Activation = "relu"
    """Nonlinearity after every hidden layer."""


class Conv(Settings):
    """Strided convolutions that halve the image until its sides are below 8 pixels; the decoder mirrors them."""

    kind: Literal["conv"] = "conv"
    channels: int = Field(32, ge=1, le=4096)
    """Channels after the first convolution, doubled by every further one up to 8 times."""
    hidden: Widths = (256,)
    """Widths of the dense layers between the convolutions and the latent space, in units; 'none' for no such layer."""
    activation: Activation = "relu"
    """Nonlinearity after every layer."""


class Resnet(Settings):
    """Residual blocks with group normalisation, attention at the lowest resolution, nearest-neighbour upsampling."""

    kind: Literal["resnet"] = "resnet"
    channels: int = Field(32, ge=8, le=4096, multiple_of=8)
    """Channels at full resolution, doubled at every halving up to 8 times; a multiple of 8."""
    blocks: int = Field(1, ge=1, le=16)
    """Residual blocks at every resolution."""
    attention: bool = True
    """Self-attention between the pixels of the lowest resolution."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations dropped inside every block while training."""


Network = Annotated[Mlp | Conv | Resnet, Field(discriminator="kind")]


# --- Probabilistic parts and the objective ---------------------------------------------------------------------------


class GaussianPosterior(Settings):
    """q(z | x): a Gaussian with diagonal covariance."""

    kind: Literal["gaussian"] = "gaussian"


class NormalPrior(Settings):
    """p(z): the standard normal."""

    kind: Literal["normal"] = "normal"


class BernoulliLikelihood(Settings):
    """p(x | z): binary cross-entropy on pixels in [0, 1], from logits."""

    kind: Literal["bernoulli"] = "bernoulli"


class GaussianLikelihood(Settings):
    """p(x | z): a Gaussian around the decoder's output, with one standard deviation for all pixels."""

    kind: Literal["gaussian"] = "gaussian"
    sigma: Literal["fixed", "learned", "optimal"] = "learned"
    """The noise level: fixed at --likelihood.scale, learned with the weights, or optimal (what maximises
    the likelihood, a running value of training, frozen for validation and use)."""
    scale: float = Field(0.1, ge=1e-3, le=10)
    """Standard deviation that sigma is fixed at or starts from, where pixels run from 0 to 1."""
    levels: Literal["256", "none"] = "256"
    """256: probabilities of the 256 levels of a pixel, so that bits/dim are real. none: a plain density."""


class Elbo(Settings):
    """Reconstruction + beta * KL, in nats per image."""

    kind: Literal["elbo"] = "elbo"
    beta: float = Field(1.0, ge=0, le=10_000)
    """Weight of the KL divergence; 1 is the evidence lower bound."""
    warmup: float = Field(0.0, ge=0)
    """Epochs over which beta rises linearly from 0 to its value."""
    free_bits: float = Field(0.0, ge=0, le=1_000)
    """Nats of KL per latent that cost nothing (Kingma et al. 2016)."""
    samples: int = Field(1, ge=1, le=10_000)
    """Samples of z per image in every training step."""


Posterior = GaussianPosterior
Prior = NormalPrior
Likelihood = Annotated[BernoulliLikelihood | GaussianLikelihood, Field(discriminator="kind")]
Objective = Elbo


# --- Data and training -----------------------------------------------------------------------------------------------


class Data(Settings):
    """How images are read and fed."""

    size: str | None = None
    """Size of the images, in pixels: 64 (square) or 96x64 (width x height). Default: chosen from the data."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How an image of another shape is made to fit: short side to size and centre crop; long side and pad; stretch."""
    background: str = "white"
    """Colour behind transparent pixels and padding: a name or #rrggbb."""
    alpha: Literal["composite", "keep"] = "composite"
    """Transparency: composited over the background, or kept as a fourth channel."""
    validation: str = "0.1"
    """Held-out images: a share of the training files chosen by their content, or last:N for the last N of them."""
    flip: bool = False
    """Augmentation: mirror half of the images left to right, anew in every epoch."""
    crop: int = Field(0, ge=0, le=64)
    """Augmentation: shift by up to this many pixels each way, edges reflected."""
    jitter: float = Field(0.0, ge=0, le=1)
    """Augmentation: vary brightness, contrast and saturation by up to this share."""
    balance: bool = False
    """Draw every class equally often."""

    @field_validator("size", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        if value is None or value == "None":
            return None
        if isinstance(value, (tuple, list)) and len(value) == 2:
            value = f"{value[0]}x{value[1]}"
        words = str(value).lower().split("x")
        if not (len(words) in (1, 2) and all(w.isdecimal() and 1 <= int(w) <= 4096 for w in words)):
            raise ValueError("should be 64 or 96x64 (width x height), each side from 1 to 4096 pixels")
        return "x".join(str(int(w)) for w in words)

    @field_validator("validation", mode="before")
    @classmethod
    def _validation(cls, value: Any) -> Any:
        text = str(value)
        if text.startswith("last:") and text[5:].isdecimal() and int(text[5:]) >= 1:
            return f"last:{int(text[5:])}"
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0 < share < 1:
            raise ValueError("should be a share between 0 and 1 such as 0.1, or last:N with N of at least 1")
        return text

    @field_validator("background")
    @classmethod
    def _background(cls, value: str) -> str:
        from PIL import ImageColor

        try:
            ImageColor.getrgb(value)
        except ValueError:
            raise ValueError("should be a colour such as white, black or #ff8800") from None
        return value

    @property
    def width_height(self) -> tuple[int, int] | None:
        """The size asked for, as (width, height) in pixels."""
        if self.size is None:
            return None
        sides = [int(word) for word in self.size.split("x")]
        return sides[0], sides[-1]


class Training(Settings):
    """How the weights are found."""

    epochs: int = Field(50, ge=1, le=1_000_000)
    """Passes over the training images."""
    batch_size: int = Field(128, ge=1, le=1_000_000)
    """Images per step."""
    optimizer: Literal["adam", "adamw", "adamax", "sgd"] = "adam"
    """Optimizer; sgd has momentum 0.9."""
    learning_rate: float = Field(1e-3, gt=0, le=100)
    """Step size of the optimizer at its highest."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run: constant, or falling to zero along half a cosine."""
    ramp: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from 0."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """Pull of the weights towards zero (decoupled for adamw)."""
    clip: float = Field(0.0, ge=0)
    """Largest norm of the gradient, in nats per image per unit of weight; 0 for no clipping."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay per step of the moving average of the weights that is validated and kept; 0 for the weights themselves."""
    patience: int = Field(0, ge=0)
    """Stop after this many epochs without a better validation loss, not counting the KL warm-up; 0: never."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Random seed: the same seed, data and settings give the same weights."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["32", "bf16"] = "32"
    """Arithmetic of the networks: 32-bit, or bfloat16 with weights, KL and likelihood in 32-bit."""
    compile: bool = False
    """Compile the networks with torch.compile: slower to start, faster to run."""
    threads: int = Field(0, ge=0, le=1024)
    """Processor threads to compute with; 0 for one per core. Part of what makes a run repeatable bit for bit."""

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        kind, _, index = value.partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
            raise ValueError("should be auto, cpu, cuda, cuda:1 or mps")
        return value


class Config(Settings):
    """Everything that decides what a run computes."""

    latents: int = Field(32, ge=1, le=65536)
    """Dimensions of the latent space."""
    conditional: bool = False
    """Give the class of an image to encoder and decoder, so that one class can be generated."""
    encoder: Network = Conv()
    decoder: Network = Conv()
    posterior: Posterior = GaussianPosterior()
    prior: Prior = NormalPrior()
    likelihood: Likelihood = BernoulliLikelihood()
    objective: Objective = Elbo()
    data: Data = Data()
    training: Training = Training()


FLAT = {name: group for group, model in (("data", Data), ("training", Training)) for name in model.model_fields}
"""Names of data and training settings stand at the top level wherever a person writes them (`epochs`, not
`training.epochs`)."""


# --- Presets: named models are combinations of parts -----------------------------------------------------------------


class Preset(Settings):
    about: str
    paper: str
    settings: dict[str, Any]


PRESETS: dict[str, Preset] = {
    "classic": Preset(
        about="convolutions, Gaussian latent, binary cross-entropy + KL, Adam; the default for gray images",
        paper="Kingma & Welling 2014, arXiv:1312.6114",
        settings={},
    ),
    "sigma-vae": Preset(
        about="classic with a Gaussian over the 256 levels, its noise level learned; the default for colour images",
        paper="Rybkin et al. 2021, arXiv:2006.13202",
        settings={"likelihood": {"kind": "gaussian", "sigma": "learned"}},
    ),
    "conditional": Preset(
        about="classic, with the class given to encoder and decoder",
        paper="Sohn et al. 2015, NeurIPS 28",
        settings={"conditional": True},
    ),
    "beta-vae": Preset(
        about="classic with four times the weight on the KL, for latents that vary independently",
        paper="Higgins et al. 2017, ICLR",
        settings={"objective": {"beta": 4.0}},
    ),
    "free-bits": Preset(
        about="classic in which every latent may carry 0.1 nats for free, against posterior collapse",
        paper="Kingma et al. 2016, arXiv:1606.04934",
        settings={"objective": {"free_bits": 0.1}},
    ),
}


def parts_of(name: str) -> dict[str, type[Settings]]:
    """The settings classes a part of the configuration can have, by kind: parts_of("likelihood")["bernoulli"].

    Empty for a name that is not a part's.
    """
    annotation = Config.model_fields[name].annotation if name in Config.model_fields else None
    members = [m for m in get_args(annotation) or (annotation,) if isinstance(m, type) and issubclass(m, Settings)]
    return {m.model_fields["kind"].default: m for m in members if "kind" in m.model_fields}
