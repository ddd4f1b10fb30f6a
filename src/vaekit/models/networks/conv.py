"""Strided convolutions, and the pyramid of sizes that every convolutional network climbs."""

import math
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from vaekit.config.networks import ConvConfig
from vaekit.errors import UserError
from vaekit.models.interfaces import Decoder, Encoder
from vaekit.models.networks.conv_bf16 import Conv2d, ConvTranspose2d
from vaekit.models.networks.dense import ACTIVATIONS, ClassBias, Dense
from vaekit.models.registry import BuildContext, register
from vaekit.models.terms import Labels

Size = tuple[int, int]


def feature_sizes(shape: tuple[int, ...], latents: tuple[int, ...] = ()) -> list[Size]:
    """Sizes from the image down, each side halved (rounding down) as long as it has 8 pixels or more.

    For a latent image (c, h, w) they end at (h, w).

    Raises:
        UserError: (h, w) is none of the sizes.
    """
    sizes = [(shape[1], shape[2])]
    while max(sizes[-1]) >= 8:
        h, w = sizes[-1]
        sizes.append((h // 2 if h >= 8 else h, w // 2 if w >= 8 else w))
    if len(latents) != 3:
        return sizes
    channels, *size = latents
    if tuple(size) not in sizes:
        able = " or ".join(f"{channels}x{h}x{w}" for h, w in sizes[::-1])
        raise UserError(
            f"A latent image of {size[0]}x{size[1]} does not fit images of {shape[1]}x{shape[2]}, which networks halve "
            f"step by step: take --latents {able}."
        )
    return sizes[: sizes.index((size[0], size[1])) + 1]


def geometry(large: Size, small: Size) -> tuple[Size, Size, Size]:
    """Kernel, stride and padding of a convolution from `large` to `small`: 4 and 2 along a halved side (every output
    pixel of the transpose then has the same number of inputs: no checkerboard), 3 and 1 along a kept one."""
    tall, wide = large[0] != small[0], large[1] != small[1]
    return (3 + tall, 3 + wide), (1 + tall, 1 + wide), (1, 1)


def _transposed_geometry(large: Size, small: Size) -> tuple[Size, Size, Size, Size]:
    """The same for the transposed convolution from `small` back to exactly `large`, with its output padding."""
    rest = [a - 2 * b if a != b else 0 for a, b in zip(large, small, strict=True)]
    return *geometry(large, small), (rest[0], rest[1])


def _halvings(context: BuildContext) -> list[tuple[Size, Size]]:
    """The (large, small) pairs of the pyramid; a single same-size one where nothing is halved."""
    sizes = feature_sizes(context.shape, context.latents)
    return list(pairwise(sizes)) or [(sizes[0], sizes[0])]


def channel_widths(channels: int, count: int) -> list[int]:
    """Channels at every level from the image down."""
    return [channels * min(2**level, 8) for level in range(count)]


class LatentStem(nn.Module):
    """Flat latents [N, c*h*w] of an image (c, h, w) -> [N, width, h, w]: what `Dense` does for a latent vector."""

    def __init__(self, latents: tuple[int, ...], width: int, classes: int) -> None:
        super().__init__()
        self.latents = latents
        self.conv = Conv2d(latents[0], width, 3, padding=1)
        self.label = ClassBias(classes, width)

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None) -> Float[Tensor, "N _ h w"]:
        out: Tensor = self.label(self.conv(z.unflatten(1, self.latents)), y)
        return out


@register("encoder", "conv")
class ConvEncoder(Encoder):
    """`hidden` are the dense layers before a latent vector; a latent image has none, and ends with a convolution."""

    def __init__(self, settings: ConvConfig, context: BuildContext) -> None:
        super().__init__()
        activation = ACTIVATIONS[settings.activation]
        steps = _halvings(context)
        widths = channel_widths(settings.channels, len(steps))
        self.first = Conv2d(context.shape[0], widths[0], *geometry(*steps[0]))
        self.label = ClassBias(context.classes, widths[0])
        rest: list[nn.Module] = [activation()]
        for (before, after), step in zip(pairwise(widths), steps[1:], strict=True):
            rest += [Conv2d(before, after, *geometry(*step)), activation()]
        self.features: tuple[int, ...] = (widths[-1], *steps[-1][1])
        if len(context.latents) == 1:
            flat = math.prod(self.features)
            rest.append(nn.Flatten())
            for before, after in pairwise([flat, *settings.hidden]):
                rest += [nn.Linear(before, after), activation()]
            self.features = (settings.hidden[-1] if settings.hidden else flat,)
        self.rest = nn.Sequential(*rest)

    def forward(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Float[Tensor, "B *features"]:
        out: Tensor = self.rest(self.label(self.first(x), y))
        return out


@register("decoder", "conv")
class ConvDecoder(Decoder):
    """`hidden` are the dense layers after a latent vector; a latent image has none, and begins with a convolution."""

    def __init__(self, settings: ConvConfig, context: BuildContext) -> None:
        super().__init__()
        activation = ACTIVATIONS[settings.activation]
        steps = _halvings(context)[::-1]
        widths = channel_widths(settings.channels, len(steps))[::-1]
        small = (widths[0], *steps[0][1])
        layers: list[nn.Module]
        if len(context.latents) == 1:
            dense = [context.latent_size, *reversed(settings.hidden), math.prod(small)]
            self.dense: nn.Module = Dense(dense, context.classes, settings.activation, closed=True)
            layers = [nn.Unflatten(1, small)]
        else:
            self.dense = LatentStem(context.latents, widths[0], context.classes)
            layers = [activation()]
        for (before, after), step in zip(pairwise([*widths, context.outputs]), steps, strict=True):
            layers += [ConvTranspose2d(before, after, *_transposed_geometry(*step)), activation()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        out: Tensor = self.layers(self.dense(z, y))
        return out
