"""What convolutional networks share: the sizes of their feature maps, and how they use latents and labels."""

import math
from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from vaekit.errors import UserError, setting
from vaekit.models.interfaces import Decoder, Encoder
from vaekit.models.networks.conv_bf16 import Conv2d
from vaekit.models.networks.dense import ACTIVATIONS, ClassBias, Dense
from vaekit.models.registry import BuildContext
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
