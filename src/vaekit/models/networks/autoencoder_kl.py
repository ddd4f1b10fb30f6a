"""The autoencoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752).

Layers and their names are those of diffusers' AutoencoderKL, so that weights go either way
(`runs/diffusers.py`); its `quant_conv` is the linear map of the posterior. Pixels are scaled to [-1, 1]
before the first convolution, whose padding is gray, and back after the last one, as there. Sizes that cannot
be halved are padded at the right and bottom.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.config.networks import AutoencoderKLConfig
from vaekit.models.interfaces import Decoder, Encoder
from vaekit.models.networks.conv_bf16 import Conv2d
from vaekit.models.networks.dense import ClassBias
from vaekit.models.networks.padding import halving_factor, padded_size
from vaekit.models.registry import BuildContext, register
from vaekit.models.terms import Images, Labels

MAX_WIDENING = 4
"""Channels at the lowest resolution, as a multiple of those at full resolution, at most."""


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, and a skip connection, by a 1x1 convolution where the channels
    change."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(before, groups)
        self.conv1 = Conv2d(before, after, 3, padding=1)
        self.norm2 = _norm(after, groups)
        self.conv2 = Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, h: Float[Tensor, "N _ H W"]) -> Float[Tensor, "N _ H W"]:
        inner = self.conv1(F.silu(self.norm1(h)))
        return self.conv_shortcut(h) + self.conv2(F.silu(self.norm2(inner)))


class Attention(nn.Module):
    """Self-attention over all pixels, one head, with a skip connection."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = _norm(channels, groups)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, h: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        pixels = self.group_norm(h).flatten(2).transpose(1, 2)
        # One head, which ONNX needs to be an axis
        query, key, value = (to(pixels)[:, None] for to in (self.to_q, self.to_k, self.to_v))
        mixed = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return h + self.to_out(mixed).transpose(1, 2).unflatten(2, h.shape[2:])


class MidBlock(nn.Module):
    """Two residual blocks, with attention between them, unless there is a single pixel."""

    def __init__(self, channels: int, settings: AutoencoderKLConfig, size: tuple[int, int]) -> None:
        super().__init__()
        attention = settings.attention and math.prod(size) > 1
        self.attentions = nn.ModuleList([Attention(channels, settings.groups)] * attention)
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, settings.groups) for _ in range(2))

    def forward(self, h: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        h = self.resnets[0](h)
        for attention in self.attentions:
            h = attention(h)
        return self.resnets[1](h)


class Downsample(nn.Module):
    """Half the size: a strided convolution, padded at the right and bottom alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, h: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C _ _"]:
        return self.conv(F.pad(h, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size: nearest neighbours, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C _ _"]:
        return self.conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))


class Level(nn.ModuleDict):
    """Residual blocks, and perhaps a change of resolution, in lists by name."""

    def __init__(
        self, before: int, after: int, blocks: int, groups: int, resize: Mapping[str, nn.Module]
    ) -> None:
        inputs = [before, *[after] * (blocks - 1)]
        resnets = nn.ModuleList(ResnetBlock(channels, after, groups) for channels in inputs)
        super().__init__({"resnets": resnets, **{name: nn.ModuleList([one]) for name, one in resize.items()}})

    def forward(self, h: Float[Tensor, "N _ _ _"]) -> Float[Tensor, "N _ _ _"]:
        for layers in self.values():
            for layer in cast(nn.ModuleList, layers):
                h = layer(h)
        return h


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


def block_widths(channels: int, factor: int) -> list[int]:
    """Channels at every resolution from the image down, whose sides are divided by `factor` in all."""
    return [channels * min(2**level, MAX_WIDENING) for level in range(int(math.log2(factor)) + 1)]


@register("encoder", "autoencoder_kl")
class KLEncoder(Encoder):
    """Residual blocks at every resolution; twice as many features as the latent image has channels."""

    def __init__(self, settings: AutoencoderKLConfig, context: BuildContext) -> None:
        super().__init__()
        factor = halving_factor(context)
        size, self.padding = padded_size(context, factor)
        widths, groups = block_widths(settings.channels, factor), settings.groups
        self.widths = widths
        self.conv_in = Conv2d(context.shape[0], widths[0], 3, padding=1)
        self.label = ClassBias(context.classes, widths[0])
        self.down_blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            resize = {"downsamplers": Downsample(width)} if level < len(widths) - 1 else {}
            before = widths[max(0, level - 1)]
            self.down_blocks.append(Level(before, width, settings.blocks, groups, resize))
        self.mid_block = MidBlock(widths[-1], settings, size)
        self.conv_norm_out = _norm(widths[-1], groups)
        outputs = 2 * context.latents[0] if len(context.latents) == 3 else widths[-1]
        self.conv_out = Conv2d(widths[-1], outputs, 3, padding=1)
        self.flat = len(context.latents) == 1
        self.features = (outputs * math.prod(size),) if self.flat else (outputs, *size)

    def forward(self, x: Images, y: Labels | None = None) -> Float[Tensor, "B *features"]:
        right, bottom = self.padding
        if right or bottom:
            x = F.pad(x, (0, right, 0, bottom), "replicate")
        h = self.label(self.conv_in(2 * x - 1), y)
        for block in self.down_blocks:
            h = block(h)
        h = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(h))))
        return h.flatten(1) if self.flat else h


@register("decoder", "autoencoder_kl")
class KLDecoder(Decoder):
    """The mirror image of `KLEncoder`, with one more residual block at every resolution. Its output starts at
    the mean colour."""

    def __init__(self, settings: AutoencoderKLConfig, context: BuildContext) -> None:
        super().__init__()
        factor = halving_factor(context)
        size, _ = padded_size(context, factor)
        self.size = context.shape[1:]
        widths, groups = block_widths(settings.channels, factor)[::-1], settings.groups
        self.post_quant_conv: nn.Module
        if len(context.latents) == 1:  # a vector first becomes the lowest feature map
            channels = widths[0]
            linear = nn.Linear(context.latent_size, channels * math.prod(size))
            self.post_quant_conv = nn.Sequential(linear, nn.Unflatten(1, (channels, *size)))
            self.latents: tuple[int, ...] = context.latents
        else:
            channels, self.latents = context.latents[0], context.latents
            self.post_quant_conv = Conv2d(channels, channels, 1)
        self.conv_in = Conv2d(channels, widths[0], 3, padding=1)
        self.label = ClassBias(context.classes, widths[0])
        self.mid_block = MidBlock(widths[0], settings, size)
        self.up_blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            resize = {"upsamplers": Upsample(width)} if level < len(widths) - 1 else {}
            before = widths[max(0, level - 1)]
            self.up_blocks.append(Level(before, width, settings.blocks + 1, groups, resize))
        self.conv_norm_out = _norm(widths[-1], groups)
        self.conv_out = Conv2d(widths[-1], context.outputs, 3, padding=1)

    @torch.no_grad()
    def init_from_data(self, outputs: Float[Tensor, "C H W"]) -> None:
        """Make the mean of these over pixels the output where the last features are zero."""
        assert self.conv_out.bias is not None
        self.conv_out.bias.copy_(2 * outputs.mean((1, 2)) - 1)

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N C H W"]:
        h = self.conv_in(self.post_quant_conv(z.unflatten(1, self.latents)))
        h = self.mid_block(self.label(h, y))
        for block in self.up_blocks:
            h = block(h)
        h = self.conv_out(F.silu(self.conv_norm_out(h)))
        return (h[..., : self.size[0], : self.size[1]] + 1) / 2
