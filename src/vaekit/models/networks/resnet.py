"""Residual networks: group normalisation, SiLU, attention at the lowest resolution, nearest-neighbour upsampling."""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.config.networks import ResnetConfig
from vaekit.models.interfaces import Decoder, Encoder
from vaekit.models.networks.conv import LatentStem, Size, channel_widths, feature_sizes, geometry
from vaekit.models.networks.conv_bf16 import Conv2d
from vaekit.models.networks.dense import ClassBias, Dense
from vaekit.models.registry import BuildContext, register
from vaekit.models.terms import Labels


def _norm(channels: int) -> nn.GroupNorm:
    """8 groups, but of 2 channels at least: a group of one value, in an image of one pixel, would have no spread."""
    return nn.GroupNorm(min(8, channels // 2), channels)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, beside a skip connection (pre-activation, He et al. 2016)."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _norm(channels),
            nn.SiLU(),
            Conv2d(channels, channels, 3, padding=1),
            _norm(channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, h: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        out: Tensor = h + self.branch(h)
        return out


class Attention(nn.Module):
    """Self-attention of all pixels, one head, beside a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.triple = Conv2d(channels, 3 * channels, 1)
        self.out = Conv2d(channels, channels, 1)

    def forward(self, h: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        query, key, value = self.triple(self.norm(h)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = h + self.out(mixed.transpose(1, 2).unflatten(2, h.shape[2:]))
        return out


class Upsample(nn.Module):
    """To exactly `size` by nearest neighbour, then a convolution."""

    def __init__(self, before: int, after: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.conv = Conv2d(before, after, 3, padding=1)

    def forward(self, h: Float[Tensor, "N _ _ _"]) -> Float[Tensor, "N _ H W"]:
        out: Tensor = self.conv(F.interpolate(h, size=self.size, mode="nearest"))
        return out


@register("encoder", "resnet")
class ResnetEncoder(Encoder):
    def __init__(self, settings: ResnetConfig, context: BuildContext) -> None:
        super().__init__()
        channels, blocks, dropout = settings.channels, settings.blocks, settings.dropout
        sizes = feature_sizes(context.shape, context.latents)
        widths = channel_widths(channels, len(sizes))
        self.first = Conv2d(context.shape[0], channels, 3, padding=1)
        self.label = ClassBias(context.classes, channels)
        rest: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                rest.append(Conv2d(widths[level - 1], width, *geometry(*sizes[level - 1 : level + 1])))
            rest += [ResidualBlock(width, dropout) for _ in range(blocks)]
        rest += [Attention(widths[-1])] if settings.attention else []
        rest += [_norm(widths[-1]), nn.SiLU()]
        self.features: tuple[int, ...] = (widths[-1], *sizes[-1])
        if len(context.latents) == 1:
            rest.append(nn.Flatten())
            self.features = (math.prod(self.features),)
        self.rest = nn.Sequential(*rest)

    def forward(self, x: Float[Tensor, "B C H W"], y: Labels | None = None) -> Float[Tensor, "B *features"]:
        out: Tensor = self.rest(self.label(self.first(x), y))
        return out


@register("decoder", "resnet")
class ResnetDecoder(Decoder):
    def __init__(self, settings: ResnetConfig, context: BuildContext) -> None:
        super().__init__()
        channels, blocks, dropout = settings.channels, settings.blocks, settings.dropout
        sizes = feature_sizes(context.shape, context.latents)[::-1]
        widths = channel_widths(channels, len(sizes))[::-1]
        small = (widths[0], *sizes[0])
        layers: list[nn.Module] = []
        if len(context.latents) == 1:
            self.dense: nn.Module = Dense(
                [context.latent_size, math.prod(small)], context.classes, "silu", closed=False
            )
            layers.append(nn.Unflatten(1, small))
        else:
            self.dense = LatentStem(context.latents, widths[0], context.classes)
        layers += [Attention(widths[0])] if settings.attention else []
        for level, width in enumerate(widths):
            if level:
                layers.append(Upsample(widths[level - 1], width, sizes[level]))
            layers += [ResidualBlock(width, dropout) for _ in range(blocks)]
        layers += [_norm(channels), nn.SiLU(), Conv2d(channels, context.outputs, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        out: Tensor = self.layers(self.dense(z, y))
        return out
