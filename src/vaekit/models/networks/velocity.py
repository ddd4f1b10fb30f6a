"""Networks for the velocity of flow matching: a U-Net for latent images, residual blocks for latent vectors.

Both take flat latents x [B, D], times t [B] in [0, 1], and labels y [B], vectors of conditions y [B, K] or
None, and return [B, D]. Their last layer starts at zero.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.models.networks.patches import DepthToSpace
from vaekit.models.terms import Labels

Shape = tuple[int, ...]

FREQUENCIES = 32
"""Sines and cosines of the time that a network sees, of 1 to 60 periods from noise to latents."""
HEAD_CHANNELS = 64
"""Channels of a head of attention."""
GROUPS = 8


class TimeEmbedding(nn.Module):
    """Time, and the label if there is one, to a vector that every block reads. The last class stands for no
    label. A vector of conditions is followed by a 1, and all of it is 0 where it is withheld."""

    frequencies: Float[Tensor, " F"]

    def __init__(self, width: int, labels: int, vector: bool = False) -> None:
        super().__init__()
        powers = torch.linspace(0, math.log(60), FREQUENCIES)
        self.register_buffer("frequencies", 2 * math.pi * powers.exp(), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(labels + 1, width)
        self.vector = vector

    def forward(self, t: Float[Tensor, " B"], y: Labels | None) -> Float[Tensor, "B W"]:
        angles = t[:, None] * self.frequencies
        h = self.layers(torch.cat([angles.sin(), angles.cos()], 1))
        if self.vector:
            return F.silu(h if y is None else h + y @ self.label.weight)
        if y is None:
            y = torch.full(t.shape, self.label.num_embeddings - 1, device=t.device)
        return F.silu(h + self.label(y))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels)


def _zeroed(layer: nn.Conv2d | nn.Linear) -> Any:
    """A layer that adds nothing at first."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ConvBlock(nn.Module):
    """Two convolutions with a skip connection, scaled and shifted by the embedding (Dhariwal & Nichol 2021,
    arXiv:2105.05233, section 3.1)."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))
        self.scale_shift = nn.Linear(embedding, 2 * channels)
        self.norm = _norm(channels)
        self.last = nn.Sequential(nn.SiLU(), _zeroed(nn.Conv2d(channels, channels, 3, padding=1)))

    def forward(self, h: Float[Tensor, "B C h w"], e: Float[Tensor, "B W"]) -> Float[Tensor, "B C h w"]:
        scale, shift = self.scale_shift(e)[:, :, None, None].chunk(2, 1)
        return h + self.last(self.norm(self.first(h)) * (1 + scale) + shift)


class SelfAttention(nn.Module):
    """Between all positions, in heads of 64 channels, with a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD_CHANNELS)
        self.norm = _norm(channels)
        self.triple = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, h: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        triple = self.triple(self.norm(h)).flatten(2).unflatten(1, (3 * self.heads, -1))
        query, key, value = triple.flatten(0, 1).unflatten(0, (h.shape[0], 3, self.heads)).unbind(1)
        # Not by torch's fused attention, whose gradient takes several times as long for so few positions
        weights = (query.transpose(2, 3) @ key / math.sqrt(query.shape[2])).softmax(3)
        mixed = value @ weights.to(value.dtype).transpose(2, 3)
        return h + self.out(mixed.reshape(h.shape))


class UNet(nn.Module):
    """For latent images: blocks at their size and at half of it, where there is attention."""

    def __init__(self, shape: Shape, labels: int, channels: int, blocks: int, vector: bool = False) -> None:
        super().__init__()
        self.shape, wide, width = shape, 2 * channels, 4 * channels
        self.embedding = TimeEmbedding(width, labels, vector)
        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.before = nn.ModuleList(ConvBlock(channels, width) for _ in range(blocks))
        self.down = nn.Conv2d(channels, wide, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(ConvBlock(wide, width) for _ in range(blocks + 1))
        self.attention = SelfAttention(wide)
        self.up = nn.Sequential(nn.Conv2d(wide, 4 * channels, 1), DepthToSpace(2))
        self.join = nn.Conv2d(2 * channels, channels, 1)
        self.after = nn.ModuleList(ConvBlock(channels, width) for _ in range(blocks))
        self.last = nn.Sequential(
            _norm(channels), nn.SiLU(), _zeroed(nn.Conv2d(channels, shape[0], 3, padding=1))
        )

    def forward(
        self, x: Float[Tensor, "B D"], t: Float[Tensor, " B"], y: Labels | None
    ) -> Float[Tensor, "B D"]:
        e = self.embedding(t, y)
        h = self.first(x.unflatten(1, self.shape).contiguous(memory_format=torch.channels_last))
        for block in self.before:
            h = block(h, e)
        skip, h = h, self.down(h)
        for number, block in enumerate(self.middle):
            h = block(h, e)
            if number == 0:
                h = self.attention(h)
        h = self.up(h)[..., : skip.shape[2], : skip.shape[3]]
        h = self.join(torch.cat([h, skip], 1))
        for block in self.after:
            h = block(h, e)
        return self.last(h).flatten(1)


class LinearBlock(nn.Module):
    """Two linear maps with a skip connection, scaled and shifted by the embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.scale_shift = nn.Linear(width, 2 * width)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), _zeroed(nn.Linear(width, width)))

    def forward(self, h: Float[Tensor, "B W"], e: Float[Tensor, "B W"]) -> Float[Tensor, "B W"]:
        scale, shift = self.scale_shift(e).chunk(2, 1)
        return h + self.layers(self.norm(h) * (1 + scale) + shift)


class Mlp(nn.Module):
    """For latent vectors: residual blocks."""

    def __init__(self, shape: Shape, labels: int, channels: int, blocks: int, vector: bool = False) -> None:
        super().__init__()
        width = 4 * channels
        self.embedding = TimeEmbedding(width, labels, vector)
        self.first = nn.Linear(shape[0], width)
        self.blocks = nn.ModuleList(LinearBlock(width) for _ in range(2 * blocks))
        self.last = nn.Sequential(nn.LayerNorm(width), _zeroed(nn.Linear(width, shape[0])))

    def forward(
        self, x: Float[Tensor, "B D"], t: Float[Tensor, " B"], y: Labels | None
    ) -> Float[Tensor, "B D"]:
        e, h = self.embedding(t, y), self.first(x)
        for block in self.blocks:
            h = block(h, e)
        return self.last(h)
