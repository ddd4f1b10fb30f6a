"""Residual networks with group normalization and attention at the lowest resolution."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.config.networks import ResnetConfig
from vaekit.models.networks.conv import (
    PyramidDecoder,
    PyramidEncoder,
    Size,
    channel_widths,
    feature_sizes,
    geometry,
)
from vaekit.models.networks.conv_bf16 import Conv2d
from vaekit.models.registry import BuildContext, register


def _norm(channels: int) -> nn.GroupNorm:
    """8 groups of at least 2 channels: a group of one value, in a one-pixel image, would have no variance."""
    return nn.GroupNorm(min(8, channels // 2), channels)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, with a skip connection (pre-activation, He et al. 2016)."""

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
        return h + self.branch(h)


class Attention(nn.Module):
    """Self-attention over all pixels, one head, with a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.triple = Conv2d(channels, 3 * channels, 1)
        self.out = Conv2d(channels, channels, 1)

    def forward(self, h: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        query, key, value = self.triple(self.norm(h)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        if torch.onnx.is_in_onnx_export():  # an axis of heads, without which it rounds as it always did
            mixed = F.scaled_dot_product_attention(*(t.unsqueeze(1) for t in (query, key, value))).squeeze(1)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value)
        return h + self.out(mixed.transpose(1, 2).unflatten(2, h.shape[2:]))


class Upsample(nn.Module):
    """Nearest-neighbor upsampling to exactly `size`, then a convolution."""

    def __init__(self, before: int, after: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.conv = Conv2d(before, after, 3, padding=1)

    def forward(self, h: Float[Tensor, "N _ _ _"]) -> Float[Tensor, "N _ H W"]:
        return self.conv(F.interpolate(h, size=self.size, mode="nearest"))


@register("encoder", "resnet")
class ResnetEncoder(PyramidEncoder):
    """Residual blocks at every resolution, with strided convolutions between."""

    def __init__(self, settings: ResnetConfig, context: BuildContext) -> None:
        sizes = feature_sizes(context.shape, context.latents)
        widths = channel_widths(settings.channels, len(sizes))
        super().__init__(context, Conv2d(context.shape[0], widths[0], 3, padding=1))
        layers: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                layers.append(Conv2d(widths[level - 1], width, *geometry(*sizes[level - 1 : level + 1])))
            layers += [ResidualBlock(width, settings.dropout) for _ in range(settings.blocks)]
        if settings.attention:
            layers.append(Attention(widths[-1]))
        layers += [_norm(widths[-1]), nn.SiLU()]
        self._finish(layers, (widths[-1], *sizes[-1]), context.latents, (), "silu")


@register("decoder", "resnet")
class ResnetDecoder(PyramidDecoder):
    """Residual blocks at every resolution, with upsampling between."""

    def __init__(self, settings: ResnetConfig, context: BuildContext) -> None:
        sizes = feature_sizes(context.shape, context.latents)[::-1]
        widths = channel_widths(settings.channels, len(sizes))[::-1]
        smallest = (widths[0], *sizes[0])
        super().__init__(context, smallest, (), "silu", closed=False)
        layers: list[nn.Module] = [nn.Unflatten(1, smallest)] if len(context.latents) == 1 else []
        if settings.attention:
            layers.append(Attention(widths[0]))
        for level, width in enumerate(widths):
            if level:
                layers.append(Upsample(widths[level - 1], width, sizes[level]))
            layers += [ResidualBlock(width, settings.dropout) for _ in range(settings.blocks)]
        layers += [_norm(widths[-1]), nn.SiLU(), Conv2d(widths[-1], context.outputs, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
