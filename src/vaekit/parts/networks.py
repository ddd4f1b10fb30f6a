"""Encoders, images [B, C, H, W] -> features [B, F], and the decoders that mirror them, latents [N, D] -> [N, C, H, W].

A class label enters the first layer as a learned bias; for a dense layer that is the same as appending the label's
one-hot code to its input.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.parts.types import Labels, part

Shape = tuple[int, int, int]
"""(C, H, W)"""
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU}


class Label(nn.Module):
    """Adds a class's own bias to the channels (axis 1) of `h`; the identity in a model without classes."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.bias = nn.Embedding(classes, width) if classes else None
        if self.bias is not None:
            # As large as a latent: a faint label would be learned last, when z tells the class already
            nn.init.normal_(self.bias.weight)

    def forward(self, h: Tensor, y: Labels | None) -> Tensor:
        if self.bias is None:
            return h
        assert y is not None, "a conditional model needs labels"
        bias: Tensor = self.bias(y)
        return h + bias.reshape(*h.shape[:2], *[1] * (h.ndim - 2)).to(h.dtype)


class Dense(nn.Module):
    """Linear layers of the given widths with a nonlinearity between them, and after the last if `closed`."""

    def __init__(self, widths: Sequence[int], classes: int, activation: str, closed: bool) -> None:
        super().__init__()
        self.first = nn.Linear(widths[0], widths[1])
        self.label = Label(classes, widths[1])
        layers: list[nn.Module] = []
        for before, after in pairwise(widths[1:]):
            layers += [ACTIVATIONS[activation](), nn.Linear(before, after)]
        self.rest = nn.Sequential(*layers, *([ACTIVATIONS[activation]()] if closed else []))

    def forward(self, h: Float[Tensor, "N _"], y: Labels | None) -> Float[Tensor, "N _"]:
        out: Tensor = self.rest(self.label(self.first(h), y))
        return out


# --- mlp -------------------------------------------------------------------------------------------------------------


@part("encoder", "mlp")
class MlpEncoder(nn.Module):
    def __init__(self, shape: Shape, classes: int, hidden: Sequence[int] = (400,), activation: str = "relu") -> None:
        super().__init__()
        pixels = math.prod(shape)
        self.features = hidden[-1] if hidden else pixels
        dense = hidden and Dense([pixels, *hidden], classes, activation, closed=True)
        self.layers: nn.Module = dense or Label(classes, pixels)

    def forward(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Float[Tensor, "B F"]:
        out: Tensor = self.layers(x.flatten(1), y)
        return out


@part("decoder", "mlp")
class MlpDecoder(nn.Module):
    def __init__(
        self, shape: Shape, latents: int, classes: int, hidden: Sequence[int] = (400,), activation: str = "relu"
    ) -> None:
        super().__init__()
        self.shape = shape
        self.layers = Dense([latents, *reversed(hidden), math.prod(shape)], classes, activation, closed=False)

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        out: Tensor = self.layers(z, y)
        return out.reshape(-1, *self.shape)


# --- conv ------------------------------------------------------------------------------------------------------------

Sides = tuple[int, int]


def pyramid(height: int, width: int) -> list[Sides]:
    """Sizes from the image down, each side halved (rounding down) as long as it has 8 pixels or more."""
    sizes = [(height, width)]
    while max(sizes[-1]) >= 8:
        h, w = sizes[-1]
        sizes.append((h // 2 if h >= 8 else h, w // 2 if w >= 8 else w))
    return sizes


def _geometry(large: Sides, small: Sides) -> tuple[Sides, Sides, Sides]:
    """Kernel, stride and padding of a convolution from `large` to `small`: 4 and 2 along a halved side (every output
    pixel of the transpose then has the same number of inputs: no checkerboard), 3 and 1 along a kept one."""
    tall, wide = large[0] != small[0], large[1] != small[1]
    return (3 + tall, 3 + wide), (1 + tall, 1 + wide), (1, 1)


def _mirror(large: Sides, small: Sides) -> tuple[Sides, Sides, Sides, Sides]:
    """The same for the transposed convolution from `small` back to exactly `large`, with its output padding."""
    rest = [a - 2 * b if a != b else 0 for a, b in zip(large, small, strict=True)]
    return *_geometry(large, small), (rest[0], rest[1])


def _steps(shape: Shape) -> list[tuple[Sides, Sides]]:
    """The (large, small) pairs of the pyramid; a single same-size one for an image too small to halve."""
    sizes = pyramid(*shape[1:])
    return list(pairwise(sizes)) or [(sizes[0], sizes[0])]


def _doubling(channels: int, count: int) -> list[int]:
    return [channels * min(2**level, 8) for level in range(count)]


@part("encoder", "conv")
class ConvEncoder(nn.Module):
    def __init__(
        self,
        shape: Shape,
        classes: int,
        channels: int = 32,
        hidden: Sequence[int] = (256,),
        activation: str = "relu",
    ) -> None:
        super().__init__()
        steps = _steps(shape)
        widths = _doubling(channels, len(steps))
        self.first = nn.Conv2d(shape[0], widths[0], *_geometry(*steps[0]))
        self.label = Label(classes, widths[0])
        rest: list[nn.Module] = [ACTIVATIONS[activation]()]
        for (before, after), step in zip(pairwise(widths), steps[1:], strict=True):
            rest += [nn.Conv2d(before, after, *_geometry(*step)), ACTIVATIONS[activation]()]
        rest.append(nn.Flatten())
        flat = widths[-1] * math.prod(steps[-1][1])
        for before, after in pairwise([flat, *hidden]):
            rest += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.rest = nn.Sequential(*rest)
        self.features = hidden[-1] if hidden else flat

    def forward(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Float[Tensor, "B F"]:
        out: Tensor = self.rest(self.label(self.first(x), y))
        return out


@part("decoder", "conv")
class ConvDecoder(nn.Module):
    def __init__(
        self,
        shape: Shape,
        latents: int,
        classes: int,
        channels: int = 32,
        hidden: Sequence[int] = (256,),
        activation: str = "relu",
    ) -> None:
        super().__init__()
        steps = _steps(shape)[::-1]
        widths = _doubling(channels, len(steps))[::-1]
        small = steps[0][1]
        self.dense = Dense([latents, *reversed(hidden), widths[0] * math.prod(small)], classes, activation, closed=True)
        layers: list[nn.Module] = [nn.Unflatten(1, (widths[0], *small))]
        for (before, after), step in zip(pairwise([*widths, shape[0]]), steps, strict=True):
            layers += [nn.ConvTranspose2d(before, after, *_mirror(*step)), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        out: Tensor = self.layers(self.dense(z, y))
        return out


# --- resnet ----------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """GroupNorm, SiLU, convolution, twice, beside a skip connection (pre-activation, He et al. 2016)."""

    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.GroupNorm(8, before),
            nn.SiLU(),
            nn.Conv2d(before, after, 3, padding=1),
            nn.GroupNorm(8, after),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Conv2d(after, after, 3, padding=1),
        )
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, h: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ H W"]:
        out: Tensor = self.skip(h) + self.branch(h)
        return out


class Attention(nn.Module):
    """Self-attention of all pixels, one head, beside a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.triple = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, h: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        query, key, value = self.triple(self.norm(h)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = h + self.out(mixed.transpose(1, 2).unflatten(2, h.shape[2:]))
        return out


class Upsample(nn.Module):
    """To exactly `size` by nearest neighbour, then a convolution."""

    def __init__(self, before: int, after: int, size: Sides) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(before, after, 3, padding=1)

    def forward(self, h: Float[Tensor, "N _ _ _"]) -> Float[Tensor, "N _ H W"]:
        out: Tensor = self.conv(F.interpolate(h, size=self.size, mode="nearest"))
        return out


@part("encoder", "resnet")
class ResnetEncoder(nn.Module):
    def __init__(
        self,
        shape: Shape,
        classes: int,
        channels: int = 32,
        blocks: int = 1,
        attention: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = pyramid(*shape[1:])
        widths = _doubling(channels, len(sizes))
        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.label = Label(classes, channels)
        rest: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                rest.append(nn.Conv2d(widths[level - 1], width, *_geometry(*sizes[level - 1 : level + 1])))
            rest += [Block(width, width, dropout) for _ in range(blocks)]
        rest += [Attention(widths[-1])] if attention else []
        self.rest = nn.Sequential(*rest, nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Flatten())
        self.features = widths[-1] * math.prod(sizes[-1])

    def forward(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Float[Tensor, "B F"]:
        out: Tensor = self.rest(self.label(self.first(x), y))
        return out


@part("decoder", "resnet")
class ResnetDecoder(nn.Module):
    def __init__(
        self,
        shape: Shape,
        latents: int,
        classes: int,
        channels: int = 32,
        blocks: int = 1,
        attention: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = pyramid(*shape[1:])[::-1]
        widths = _doubling(channels, len(sizes))[::-1]
        self.dense = Dense([latents, widths[0] * math.prod(sizes[0])], classes, "silu", closed=False)
        layers: list[nn.Module] = [nn.Unflatten(1, (widths[0], *sizes[0]))]
        layers += [Attention(widths[0])] if attention else []
        for level, width in enumerate(widths):
            if level:
                layers.append(Upsample(widths[level - 1], width, sizes[level]))
            layers += [Block(width, width, dropout) for _ in range(blocks)]
        layers += [nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, shape[0], 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        out: Tensor = self.layers(self.dense(z, y))
        return out
