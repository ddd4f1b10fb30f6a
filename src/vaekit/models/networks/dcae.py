"""Residual networks that compute at low resolution (DC-AE: Chen et al. 2025, arXiv:2410.10733, section 3.1).

Space-to-depth turns patches of pixels into channels, so that nothing is computed at full resolution. Where
the resolution changes, a shortcut without weights is added to the convolution: averages of groups of channels
in the encoder, repeated channels in the decoder. Sizes that cannot be halved are padded at the right and
bottom.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.config.networks import DcaeConfig
from vaekit.models.interfaces import Decoder, Encoder
from vaekit.models.networks.dense import ClassBias
from vaekit.models.networks.padding import halving_factor, padded_size
from vaekit.models.networks.patches import DepthToSpace, depth_to_space, space_to_depth
from vaekit.models.registry import BuildContext, register
from vaekit.models.terms import Images, Labels

MAX_PATCH = 4
"""Largest side of the patches of pixels that become channels at once."""


class Block(nn.Module):
    """Convolution, SiLU, convolution, and a skip connection.

    There is no normalization, whose passes over the feature maps cost about as much as a convolution on a
    processor; the last convolution starts small instead (Zhang et al. 2019, arXiv:1901.09321).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            _small(nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, h: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        return h + self.branch(h)


def _small(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer, with weights a tenth of what they would start at and no bias."""
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.zero_()
    return layer


class Downsample(nn.Module):
    """Half the size: space-to-depth and a convolution; the shortcut averages channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * before, after, 3, padding=1)

    def forward(self, h: Float[Tensor, "N C H W"]) -> Float[Tensor, "N _ _ _"]:
        patches = space_to_depth(h, 2)
        averaged = 4 * h.shape[1] // self.conv.out_channels  # pixels of a patch, beside each other or all
        return self.conv(patches) + patches.unflatten(1, (-1, averaged, h.shape[1])).mean(2).flatten(1, 2)


class Upsample(nn.Module):
    """Twice the size: a convolution and depth-to-space; the shortcut repeats channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.repeats = 4 * after // before  # pixels of a patch that a channel goes to
        self.conv = nn.Conv2d(before, 4 * after, 3, padding=1)

    def forward(self, h: Float[Tensor, "N C h w"]) -> Float[Tensor, "N _ _ _"]:
        repeated = h.unflatten(1, (4 // self.repeats, 1, -1)).expand(-1, -1, self.repeats, -1, -1, -1)
        return depth_to_space(self.conv(h) + repeated.flatten(1, 3), 2)


class Geometry:
    """Sizes and widths of feature maps.

    Attributes:
        patch: side of the patches of pixels that become channels.
        widths: channels at every level, from the patches down.
        size: (h, w) of the lowest level.
        padding: columns and rows that are added on the right and at the bottom of an image.
    """

    def __init__(self, settings: DcaeConfig, context: BuildContext) -> None:
        factor = halving_factor(context)
        self.size, self.padding = padded_size(context, factor)
        self.patch = min(MAX_PATCH, max(1, factor // 2))
        levels = int(math.log2(factor // self.patch)) + 1
        self.widths = [settings.channels * min(2**level, 4) for level in range(levels)]


@register("encoder", "dcae")
class DcaeEncoder(Encoder):
    """Patches, then residual blocks at every level."""

    def __init__(self, settings: DcaeConfig, context: BuildContext) -> None:
        super().__init__()
        geometry = self.geometry = Geometry(settings, context)
        widths = geometry.widths
        self.first = nn.Conv2d(context.shape[0] * geometry.patch**2, widths[0], 3, padding=1)
        self.label = ClassBias(context.classes, widths[0])
        layers: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                layers.append(Downsample(widths[level - 1], width))
            layers += [Block(width) for _ in range(settings.blocks)]
        layers.append(nn.SiLU())
        if vector := len(context.latents) == 1:
            layers.append(nn.Flatten())
        self.rest = nn.Sequential(*layers)
        shape = (widths[-1], *geometry.size)
        self.features = (math.prod(shape),) if vector else shape

    def forward(self, x: Images, y: Labels | None = None) -> Float[Tensor, "B *features"]:
        right, bottom = self.geometry.padding
        if right or bottom:
            x = F.pad(x, (0, right, 0, bottom), "replicate")
        patches = space_to_depth(2 * x - 1, self.geometry.patch)
        return self.rest(self.label(self.first(patches), y))


@register("decoder", "dcae")
class DcaeDecoder(Decoder):
    """Residual blocks at every level, then patches. Its output starts at the mean image."""

    start: Tensor

    def __init__(self, settings: DcaeConfig, context: BuildContext) -> None:
        super().__init__()
        geometry = self.geometry = Geometry(settings, context)
        widths, self.latents = geometry.widths, context.latents
        self.first: nn.Module
        if len(context.latents) == 1:
            self.first = nn.Sequential(
                nn.Linear(context.latent_size, widths[-1] * math.prod(geometry.size)),
                nn.Unflatten(1, (widths[-1], *geometry.size)),
            )
        else:
            self.first = nn.Sequential(
                nn.Unflatten(1, context.latents), nn.Conv2d(context.latents[0], widths[-1], 3, padding=1)
            )
        self.label = ClassBias(context.classes, widths[-1])
        layers: list[nn.Module] = []
        for level in reversed(range(len(widths))):
            layers += [Block(widths[level]) for _ in range(settings.blocks)]
            if level:
                layers.append(Upsample(widths[level], widths[level - 1]))
        last = _small(nn.Conv2d(widths[0], context.outputs * geometry.patch**2, 3, padding=1))
        self.layers = nn.Sequential(*layers, nn.SiLU(), last, DepthToSpace(geometry.patch))
        self.register_buffer("start", torch.zeros(context.output_shape))

    def init_from_data(self, outputs: Float[Tensor, "C H W"]) -> None:
        """Add these to every output from now on."""
        self.start.copy_(outputs)

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        h = self.layers(self.label(self.first(z), y))
        return h[..., : self.start.shape[1], : self.start.shape[2]] + self.start
