"""The whole configuration of a run: one validated tree, free of torch.

The same names everywhere: a flag `--objective.beta 4`, a TOML table `[objective] beta = 4`, a Python argument
`objective={"beta": 4}`, and `config.json` of a run. A part's settings class and the part itself (in `parts/`) are tied
by `kind`; the fields of the class are the keyword arguments of the part.
"""

from math import prod
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vaekit.settings import Data, Settings, Training


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


class GatedMlp(Settings):
    """Fully connected layers, each the product of a linear map and a sigmoid of another."""

    kind: Literal["gated_mlp"] = "gated_mlp"
    hidden: Widths = (300, 300)
    """Widths of the hidden layers, from the input on, in units."""


class Conv(Settings):
    """Strided convolutions that halve the image until its sides are below 8 pixels; the decoder mirrors them."""

    kind: Literal["conv"] = "conv"
    channels: int = Field(32, ge=1, le=4096)
    """Channels after the first convolution, doubled by every further one until there are 8 times as many."""
    hidden: Widths = (256,)
    """Widths of the dense layers between the convolutions and the latent space, in units; 'none' for no such layer. A
    latent image has none."""
    activation: Activation = "relu"
    """Nonlinearity after every layer."""


class Resnet(Settings):
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


class Own(Settings):
    """A module of your own, given from Python: `vaekit.train(images, encoder=module, decoder=module)`."""

    kind: Literal["own"] = "own"
    name: str = ""
    """What the module is called; filled in from its class."""


Network = Annotated[Mlp | GatedMlp | Conv | Resnet | Own, Field(discriminator="kind")]


# --- Posteriors ------------------------------------------------------------------------------------------------------


class GaussianPosterior(Settings):
    """A Gaussian with diagonal covariance."""

    kind: Literal["gaussian"] = "gaussian"


class FullGaussianPosterior(Settings):
    """A Gaussian with full covariance, from its Cholesky factor."""

    kind: Literal["full_gaussian"] = "full_gaussian"


class _FlowPosterior(Settings):
    steps: int = Field(4, ge=1, le=64)
    """Transformations, one after another."""
    hidden: Widths = (128,)
    """Widths of the hidden layers in every step, in units."""
    context: int = Field(64, ge=1, le=4096)
    """Width of the summary of the image that every step sees."""


class IafPosterior(_FlowPosterior):
    """A Gaussian bent by inverse autoregressive steps; its density is known at its own samples only."""

    kind: Literal["iaf"] = "iaf"


class NsfPosterior(_FlowPosterior):
    """A Gaussian bent by coupling steps of monotonic splines."""

    kind: Literal["nsf"] = "nsf"
    bins: int = Field(8, ge=2, le=64)
    """Pieces of every spline."""


class DeltaPosterior(Settings):
    """A single point: the encoder of an autoencoder, without noise."""

    kind: Literal["delta"] = "delta"


# --- Priors ----------------------------------------------------------------------------------------------------------


class NormalPrior(Settings):
    """The standard normal."""

    kind: Literal["normal"] = "normal"


class MixturePrior(Settings):
    """A learned mixture of Gaussians."""

    kind: Literal["mixture"] = "mixture"
    components: int = Field(100, ge=1, le=65536)
    """Gaussians in the mixture."""


class VampPrior(Settings):
    """A mixture of the posteriors of learned pseudo-inputs, started from training images."""

    kind: Literal["vamp"] = "vamp"
    components: int = Field(500, ge=1, le=65536)
    """Pseudo-inputs, each giving a component of the mixture."""


class FlowPrior(Settings):
    """A learned normalising flow of coupling steps."""

    kind: Literal["flow"] = "flow"
    transform: Literal["realnvp", "spline"] = "realnvp"
    """What a step does to a half of the latents, given the other: scale and shift, or a monotonic spline."""
    steps: int = Field(6, ge=1, le=64)
    """Transformations, one after another."""
    hidden: Widths = (256,)
    """Widths of the hidden layers in every step, in units."""


class ClassPrior(Settings):
    """One learned Gaussian per class; needs --conditional."""

    kind: Literal["class"] = "class"


# --- Likelihoods -----------------------------------------------------------------------------------------------------


class BernoulliLikelihood(Settings):
    """Binary cross-entropy on pixels in [0, 1], from logits."""

    kind: Literal["bernoulli"] = "bernoulli"


class BinarizedLikelihood(Settings):
    """A Bernoulli on black-and-white pixels, which are drawn with the gray value as the probability of white."""

    kind: Literal["binarized"] = "binarized"
    draw: Literal["step", "once"] = "step"
    """Draw the pixels of training images anew at every step, or once and for all. Others are always drawn once."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Random seed of the pixels that are drawn once; with the image itself it decides them."""


class ContinuousBernoulliLikelihood(Settings):
    """The Bernoulli's curve as a normalised density on [0, 1]."""

    kind: Literal["continuous_bernoulli"] = "continuous_bernoulli"


class _Noise(Settings):
    """What the likelihoods around a location have in common."""

    sigma: Literal["fixed", "learned", "pixel", "optimal"] = "learned"
    """The noise level: fixed at --likelihood.scale; learned with the weights, one for all pixels; pixel: an output of
    the decoder for every pixel; or optimal (what maximises the likelihood, a running value of training, frozen for
    validation and use)."""
    scale: float = Field(0.1, ge=1e-3, le=10)
    """Noise level that sigma is fixed at or starts from, where pixels run from 0 to 1."""
    levels: Literal["256", "none"] = "256"
    """256: probabilities of the 256 levels of a pixel, so that bits/dim are real. none: a plain density."""


class GaussianLikelihood(_Noise):
    """A Gaussian around the decoder's output; its scale is the standard deviation."""

    kind: Literal["gaussian"] = "gaussian"


class LaplaceLikelihood(_Noise):
    """A Laplace distribution around the decoder's output; its scale is the mean absolute deviation."""

    kind: Literal["laplace"] = "laplace"


class LogisticMixtureLikelihood(Settings):
    """A mixture of logistics over the 256 levels, each colour given those before it (PixelCNN++)."""

    kind: Literal["logistic_mixture"] = "logistic_mixture"
    components: int = Field(5, ge=1, le=64)
    """Logistics in the mixture of every pixel."""


# --- Objectives ------------------------------------------------------------------------------------------------------


class Elbo(Settings):
    """Reconstruction + beta * KL, in nats per image."""

    kind: Literal["elbo"] = "elbo"
    beta: float = Field(1.0, ge=0, le=10_000)
    """Weight of the KL divergence; 1 is the evidence lower bound."""
    warmup: float = Field(0.0, ge=0)
    """Epochs over which beta (or, where it is set, the capacity) rises linearly from 0 to its value."""
    cycles: int = Field(1, ge=1, le=1_000)
    """Times that beta rises; between two rises it stays at its value for as long as a rise takes."""
    free_bits: float = Field(0.0, ge=0, le=1_000)
    """Nats of KL per latent that cost nothing (Kingma et al. 2016)."""
    capacity: float = Field(0.0, ge=0, le=100_000)
    """Nats of KL per image that the model is held at, by beta * |KL - capacity|; 0: not held."""
    samples: int = Field(1, ge=1, le=10_000)
    """Samples of z per image in every training step."""

    @model_validator(mode="after")
    def _one_target(self) -> "Elbo":
        if self.free_bits and self.capacity:
            raise ValueError("free_bits and capacity both say how much KL is wanted, so set one of them")
        if self.cycles > 1 and not self.warmup:
            raise ValueError("cycles are those of the warm-up, so set --objective.warmup to the epochs of a rise")
        return self


class Iwae(Settings):
    """The importance-weighted bound."""

    kind: Literal["iwae"] = "iwae"
    samples: int = Field(5, ge=1, le=10_000)
    """Samples of z per image in every training step."""


class Dreg(Settings):
    """The importance-weighted bound, with doubly reparameterised gradients for the encoder."""

    kind: Literal["dreg"] = "dreg"
    samples: int = Field(5, ge=1, le=10_000)
    """Samples of z per image in every training step."""


class Miwae(Settings):
    """The mean of several importance-weighted bounds."""

    kind: Literal["miwae"] = "miwae"
    samples: int = Field(16, ge=1, le=10_000)
    """Samples of z per image in every training step, shared out among the bounds."""
    bounds: int = Field(4, ge=1, le=10_000)
    """Bounds that are averaged; samples is a multiple of it."""

    @model_validator(mode="after")
    def _shared_out(self) -> "Miwae":
        if self.samples % self.bounds:
            raise ValueError(f"samples should be a multiple of bounds, and {self.samples} is none of {self.bounds}")
        return self


class Mmd(Settings):
    """Reconstruction + weight * MMD between encodings and prior (+ beta * KL): Wasserstein and Info-VAE."""

    kind: Literal["mmd"] = "mmd"
    weight: float = Field(100.0, ge=0, le=1e9)
    """Weight of the maximum mean discrepancy, which lies between 0 and 2 (estimated by a batch, perhaps just below)."""
    beta: float = Field(0.0, ge=0, le=10_000)
    """Weight of the KL divergence."""
    kernel: Literal["imq", "rbf"] = "imq"
    """Inverse multiquadric (heavy tails) or Gaussian."""


class TotalCorrelation(Settings):
    """Reconstruction + the KL's three parts, each with its weight (beta-TC-VAE)."""

    kind: Literal["total_correlation"] = "total_correlation"
    alpha: float = Field(1.0, ge=0, le=10_000)
    """Weight of the mutual information between image and latents."""
    beta: float = Field(6.0, ge=0, le=10_000)
    """Weight of the total correlation among latents."""
    gamma: float = Field(1.0, ge=0, le=10_000)
    """Weight of the KL between each latent's aggregate and its prior."""


class Dip(Settings):
    """The ELBO + a penalty on the covariance of the latents (DIP-VAE)."""

    kind: Literal["dip"] = "dip"
    variant: Literal["1", "2"] = "1"
    """1: covariance of the posterior means; 2: of the latents, posterior variance included."""
    off_diagonal: float = Field(10.0, ge=0, le=1e6)
    """Weight of the squared covariances between latents."""
    diagonal: float = Field(100.0, ge=0, le=1e6)
    """Weight of the squared distances of the variances from 1."""


class L2(Settings):
    """Reconstruction + weight * |z|^2 / 2: regularised and plain autoencoders."""

    kind: Literal["l2"] = "l2"
    weight: float = Field(1.0, ge=0, le=1e6)
    """Weight of half the squared length of the latents; 0 for a plain autoencoder."""


Posterior = Annotated[
    GaussianPosterior | FullGaussianPosterior | IafPosterior | NsfPosterior | DeltaPosterior,
    Field(discriminator="kind"),
]
Prior = Annotated[NormalPrior | MixturePrior | VampPrior | FlowPrior | ClassPrior, Field(discriminator="kind")]
Likelihood = Annotated[
    BernoulliLikelihood
    | BinarizedLikelihood
    | ContinuousBernoulliLikelihood
    | GaussianLikelihood
    | LaplaceLikelihood
    | LogisticMixtureLikelihood,
    Field(discriminator="kind"),
]
Objective = Annotated[Elbo | Iwae | Dreg | Miwae | Mmd | TotalCorrelation | Dip | L2, Field(discriminator="kind")]


# --- The tree --------------------------------------------------------------------------------------------------------


class Config(Settings):
    """Everything that decides what a run computes."""

    latents: int | str = 32
    """Dimensions of the latent space; or 4x7x7, channels x height x width, for a latent image."""
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

    @field_validator("latents", mode="before")
    @classmethod
    def _latents(cls, value: Any) -> Any:
        words = "x".join(map(str, value)).split("x") if isinstance(value, (tuple, list)) else str(value).split("x")
        sides = [int(word) for word in words if word.isdecimal()]
        if len(sides) != len(words) or len(sides) not in (1, 3) or not (min(sides) >= 1 and prod(sides) <= 65536):
            raise ValueError("should be a number from 1 to 65536, or channels x height x width such as 4x7x7")
        return sides[0] if len(sides) == 1 else "x".join(map(str, sides))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(D,), or (C, h, w) of a latent image."""
        return tuple(int(word) for word in str(self.latents).split("x"))


FLAT = {name: group for group, model in (("data", Data), ("training", Training)) for name in model.model_fields}
"""Names of data and training settings stand at the top level wherever a person writes them (`epochs`, not
`training.epochs`)."""


def parts_of(name: str) -> dict[str, type[Settings]]:
    """The settings classes a part of the configuration can have, by kind: parts_of("likelihood")["bernoulli"].

    Empty for a name that is not a part's.
    """
    annotation = Config.model_fields[name].annotation if name in Config.model_fields else None
    members = [m for m in get_args(annotation) or (annotation,) if isinstance(m, type) and issubclass(m, Settings)]
    return {m.model_fields["kind"].default: m for m in members if "kind" in m.model_fields}


ROOMS = tuple(name for name in Config.model_fields if parts_of(name))
"""Where the parts are: encoder, decoder, posterior, prior, likelihood, objective."""
