"""Convolutional networks: strided convolutions, transposed ones in the decoder, and what residual networks
share with them: the sizes of feature maps, and how latents and labels are used."""

import math
from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from vaekit.config.networks import ConvConfig
from vaekit.errors import UserError, setting
from vaekit.models.interfaces import Decoder, Encoder
from vaekit.models.networks.conv_bf16 import Conv2d, ConvTranspose2d
from vaekit.models.networks.dense import ACTIVATIONS, ClassBias, Dense
from vaekit.models.registry import BuildContext, register
from vaekit.models.terms import Images, Labels

Size = tuple[int, int]
Shape = tuple[int, ...]


def feature_sizes(shape: Shape, latents: Shape = ()) -> list[Size]:
    """Sizes from the image down, each side halved (rounding down) while it has 8 pixels or more.

    For a latent image (c, h, w) they end at (h, w); a UserError if that is not one of the sizes.
    """
    sizes = [(shape[1], shape[2])]
    while max(sizes[-1]) >= 8:
        h, w = sizes[-1]
        sizes.append((h // 2 if h >= 8 else h, w // 2 if w >= 8 else w))
    if len(latents) != 3:
        return sizes
    channels, *size = latents
    if tuple(size) not in sizes:
        first, *others = (f"{channels}x{h}x{w}" for h, w in sizes[::-1])
        raise UserError(
            f"A latent image of {size[0]}x{size[1]} does not fit images of {shape[1]}x{shape[2]}.",
            f"Use {' or '.join([setting('latents', first), *others])}.",
        )
    return sizes[: sizes.index((size[0], size[1])) + 1]


def geometry(large: Size, small: Size) -> tuple[Size, Size, Size]:
    """Kernel, stride and padding of a convolution from `large` to `small`.

    Kernel 4 and stride 2 along a halved side, so that every output pixel of the transposed convolution has
    the same number of inputs (no checkerboard artifacts); 3 and 1 along an unchanged one.
    """
    tall, wide = large[0] != small[0], large[1] != small[1]
    return (3 + tall, 3 + wide), (1 + tall, 1 + wide), (1, 1)


def channel_widths(channels: int, count: int) -> list[int]:
    """Channels at every level from the image down."""
    return [channels * min(2**level, 8) for level in range(count)]


class LatentStem(nn.Module):
    """Flat latents [N, c*h*w] to [N, width, h, w]: what `Dense` does for a latent vector."""

    def __init__(self, latents: Shape, width: int, classes: int) -> None:
        super().__init__()
        self.latents = latents
        self.conv = Conv2d(latents[0], width, 3, padding=1)
        self.label = ClassBias(classes, width)

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None) -> Float[Tensor, "N _ h w"]:
        return self.label(self.conv(z.unflatten(1, self.latents)), y)


class PyramidEncoder(Encoder):
    """A first convolution, the class label, and the rest down to the features."""

    rest: nn.Sequential

    def __init__(self, context: BuildContext, first: Conv2d) -> None:
        super().__init__()
        self.first = first
        self.label = ClassBias(context.classes, first.out_channels)

    def _finish(
        self, layers: list[nn.Module], features: Shape, latents: Shape, hidden: Sequence[int], activation: str
    ) -> None:
        """Set `rest` and `features`; for a latent vector feature maps pass `hidden` dense layers."""
        if len(latents) == 1:
            widths = [math.prod(features), *hidden]
            layers.append(nn.Flatten())
            for before, after in pairwise(widths):
                layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
            features = (widths[-1],)
        self.rest, self.features = nn.Sequential(*layers), features

    def forward(self, x: Images, y: Labels | None = None) -> Float[Tensor, "B *features"]:
        return self.rest(self.label(self.first(x), y))


class PyramidDecoder(Decoder):
    """Latents and labels to the smallest feature maps (C, h, w), by dense layers or for a latent image by a
    convolution; then `layers`, set by the subclass."""

    layers: nn.Sequential

    def __init__(
        self, context: BuildContext, smallest: Shape, hidden: Sequence[int], activation: str, closed: bool
    ) -> None:
        super().__init__()
        self.dense: nn.Module
        if len(context.latents) == 1:
            widths = [context.latent_size, *reversed(hidden), math.prod(smallest)]
            self.dense = Dense(widths, context.classes, activation, closed)
        else:
            self.dense = LatentStem(context.latents, smallest[0], context.classes)

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        return self.layers(self.dense(z, y))


def _transposed_geometry(large: Size, small: Size) -> tuple[Size, Size, Size, Size]:
    """The same and the output padding, for a transposed convolution from `small` to exactly `large`."""
    rest = [a - 2 * b if a != b else 0 for a, b in zip(large, small, strict=True)]
    return *geometry(large, small), (rest[0], rest[1])


def _halvings(context: BuildContext) -> list[tuple[Size, Size]]:
    """(large, small) for every convolution; a single pair of equal sizes where nothing is halved."""
    sizes = feature_sizes(context.shape, context.latents)
    return list(pairwise(sizes)) or [(sizes[0], sizes[0])]


@register("encoder", "conv")
class ConvEncoder(PyramidEncoder):
    """Convolutions, then for a latent vector the dense layers `hidden`."""

    def __init__(self, settings: ConvConfig, context: BuildContext) -> None:
        activation = ACTIVATIONS[settings.activation]
        steps = _halvings(context)
        widths = channel_widths(settings.channels, len(steps))
        super().__init__(context, Conv2d(context.shape[0], widths[0], *geometry(*steps[0])))
        layers: list[nn.Module] = [activation()]
        for (before, after), step in zip(pairwise(widths), steps[1:], strict=True):
            layers += [Conv2d(before, after, *geometry(*step)), activation()]
        self._finish(
            layers, (widths[-1], *steps[-1][1]), context.latents, settings.hidden, settings.activation
        )


@register("decoder", "conv")
class ConvDecoder(PyramidDecoder):
    """The mirror image of `ConvEncoder`."""

    def __init__(self, settings: ConvConfig, context: BuildContext) -> None:
        activation = ACTIVATIONS[settings.activation]
        steps = _halvings(context)[::-1]
        widths = channel_widths(settings.channels, len(steps))[::-1]
        smallest = (widths[0], *steps[0][1])
        super().__init__(context, smallest, settings.hidden, settings.activation, closed=True)
        layers: list[nn.Module] = [nn.Unflatten(1, smallest) if len(context.latents) == 1 else activation()]
        for (before, after), step in zip(pairwise([*widths, context.outputs]), steps, strict=True):
            layers += [ConvTranspose2d(before, after, *_transposed_geometry(*step)), activation()]
        self.layers = nn.Sequential(*layers[:-1])
