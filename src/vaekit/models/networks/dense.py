"""Fully connected networks, and how every network is conditioned on labels.

Training starts from data: encoders subtract the mean image, which conditions their first layer (LeCun et al.
1998, "Efficient backprop", section 4.3), and decoders start at it, as in Burda et al.'s code of 2016.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vaekit.config.networks import GatedMlpConfig, MlpConfig
from vaekit.errors import UserError, setting
from vaekit.models.interfaces import Decoder, Encoder
from vaekit.models.registry import BuildContext, register
from vaekit.models.terms import Images, Labels


class _ReluBySign(torch.autograd.Function):
    """max(0, h); its derivative is the sign of the output."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        out = h.clamp(min=0)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return grads[0] * out.sign()


class Relu(nn.Module):
    """max(0, h), in place: nothing else uses the output of the layer before it.

    When compiled, it saves its output for the backward pass; for torch's ReLU the compiler would save a mask,
    whose reads and writes take a tenth of a training step of 784-400-20.
    """

    def forward(self, h: Tensor) -> Tensor:
        return _ReluBySign.apply(h) if torch.compiler.is_compiling() else F.relu_(h)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": Relu,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    # h = (W x + b) * sigmoid(V x + c) and no other nonlinearity (Tomczak & Welling 2018, section 4)
    "gated": nn.GLU,
}

INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "gated": nn.init.kaiming_normal_,  # gates halve the signal; gains 2 nats after 1,500 steps
    "tanh": nn.init.xavier_uniform_,  # Glorot & Bengio 2010, as in Burda et al. 2016
}
"""Initializers of weights before a nonlinearity, where torch's default shrinks the signal."""


def embed(embedding: nn.Embedding, y: Labels) -> Float[Tensor, "B W"]:
    """The rows of an embedding for classes, or sums of all rows weighted by conditions: a one-hot vector has
    the row of its class."""
    return y @ embedding.weight if y.is_floating_point() else embedding(y)


class ClassBias(nn.Module):
    """Add a learned bias per class or condition, if any, to the channels (axis 1): for a dense layer this
    equals appending the one-hot label or the conditions to its input."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.bias = nn.Embedding(classes, width) if classes else None
        if self.bias is not None:
            # As large as a latent: a weaker label would be learned last, when z already contains the class
            nn.init.normal_(self.bias.weight)

    def forward(self, h: Tensor, y: Labels | None) -> Tensor:
        if self.bias is None:
            return h
        assert y is not None, "a conditional model needs labels"
        return h + embed(self.bias, y).reshape(*h.shape[:2], *[1] * (h.ndim - 2)).to(h.dtype)


class Dense(nn.Module):
    """Linear layers of the given widths, with an activation between them and, if `closed`, after the last."""

    def __init__(self, widths: Sequence[int], classes: int, activation: str, closed: bool) -> None:
        super().__init__()
        *inner, last = widths[1:]
        halves = 2 if activation == "gated" else 1  # inputs of the activation per output
        outs = [halves * width for width in inner] + [halves * last if closed else last]
        self.first = nn.Linear(widths[0], outs[0])
        self.label = ClassBias(classes, outs[0])
        later = [nn.Linear(before, out) for before, out in zip(inner, outs[1:], strict=True)]
        layers = [module for layer in later for module in (ACTIVATIONS[activation](), layer)]
        self.rest = nn.Sequential(*layers, *([ACTIVATIONS[activation]()] if closed else []))
        if initialize := INITIALIZERS.get(activation):
            for layer in [self.first, *later][: len(inner) + closed]:
                initialize(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, h: Float[Tensor, "N _"], y: Labels | None) -> Float[Tensor, "N _"]:
        return self.rest(self.label(self.first(h), y))


def _require_vector(settings: MlpConfig | GatedMlpConfig, slot: str, latents: tuple[int, ...]) -> None:
    if len(latents) != 1:
        image, size = "x".join(map(str, latents)), setting("latents", math.prod(latents))
        hint = f"Use {setting('encoder.kind', 'conv')} and {setting('decoder.kind', 'conv')}, or {size}."
        raise UserError(f"The {slot} {settings.kind!r} does not support the latent image {image}.", hint)


@register("encoder", "mlp")
@register("encoder", "gated_mlp")
class MlpEncoder(Encoder):
    """Dense layers over all pixels."""

    mean: Tensor

    def __init__(self, settings: MlpConfig | GatedMlpConfig, context: BuildContext) -> None:
        super().__init__()
        _require_vector(settings, "encoder", context.latents)
        pixels, hidden = math.prod(context.shape), settings.hidden
        self.features = (hidden[-1] if hidden else pixels,)
        self.layers: nn.Module = (
            Dense([pixels, *hidden], context.classes, settings.activation, closed=True)
            if hidden
            else ClassBias(context.classes, pixels)
        )
        self.register_buffer("mean", torch.zeros(context.shape))

    def init_from_data(self, mean: Float[Tensor, "C H W"]) -> None:
        """Subtract the mean image from now on."""
        self.mean.copy_(mean)

    def forward(self, x: Images, y: Labels | None = None) -> Float[Tensor, "B F"]:
        return self.layers((x - self.mean).flatten(1), y)


@register("decoder", "mlp")
@register("decoder", "gated_mlp")
class MlpDecoder(Decoder):
    """The mirror image of `MlpEncoder`."""

    def __init__(self, settings: MlpConfig | GatedMlpConfig, context: BuildContext) -> None:
        super().__init__()
        _require_vector(settings, "decoder", context.latents)
        self.shape = context.output_shape
        widths = [context.latent_size, *reversed(settings.hidden), math.prod(self.shape)]
        self.layers = Dense(widths, context.classes, settings.activation, closed=False)

    @torch.no_grad()
    def init_from_data(self, outputs: Float[Tensor, "C H W"]) -> None:
        """Make these the outputs where the last features are zero."""
        *_, last = (layer for layer in self.layers.modules() if isinstance(layer, nn.Linear))
        last.bias.copy_(outputs.flatten())

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        return self.layers(z, y).reshape(-1, *self.shape)
