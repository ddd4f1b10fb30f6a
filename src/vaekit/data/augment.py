"""Augmentation on the device: each image's own numbers come from (seed, number of its draw), by counting."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.config.data import DataConfig
from vaekit.utils.random import GOLDEN_GAMMA, splitmix64, unit_interval

NUMBERS_PER_IMAGE = 6
"""Random numbers an image may use: one to mirror it, two to shift it, three for its colours."""


def augment(x: Float[Tensor, "B C H W"], settings: DataConfig, seed: int, first_draw: int) -> Float[Tensor, "B C H W"]:
    """Mirror, shift and recolour images as `settings` asks; pixels stay on the 256 levels.

    Args:
        seed: the epoch's.
        first_draw: number of the first image's draw in its epoch; the others follow it.
    """
    if not (settings.flip or settings.crop or settings.jitter):
        return x
    numbers = uniform(len(x), seed, first_draw, x.device)
    if settings.flip:
        x = torch.where(numbers[:, 0, None, None, None] < 0.5, x.flip(-1), x)
    if settings.crop:
        choices = 2 * settings.crop + 1
        offsets = (numbers[:, 1:3] * choices).long().clamp_(max=choices - 1) - settings.crop
        x = shift(x, offsets[:, 0], offsets[:, 1])
    if settings.jitter:
        x = color_jitter(x, 1 + settings.jitter * (2 * numbers[:, 3:] - 1))
        x = torch.div(torch.round(x * 255), 255)
    return x


def uniform(count: int, seed: int, first_draw: int, device: torch.device) -> Float[Tensor, "B 6"]:
    """Numbers in [0, 1), a function of seed, draw and column: splitmix64 of a counter (Steele et al. 2014, OOPSLA)."""
    counter = torch.arange(first_draw * NUMBERS_PER_IMAGE, (first_draw + count) * NUMBERS_PER_IMAGE, device=device)
    words = splitmix64((counter + 1) * GOLDEN_GAMMA + seed)  # int64 wraps around, as the algorithm wants
    return unit_interval(words).view(count, NUMBERS_PER_IMAGE)


def shift(x: Float[Tensor, "B C H W"], down: Tensor, right: Tensor) -> Float[Tensor, "B C H W"]:
    """Move each image by whole pixels; what comes in is its reflection in the edge."""
    rows = _reflect(torch.arange(x.shape[2], device=x.device) - down[:, None], x.shape[2])
    columns = _reflect(torch.arange(x.shape[3], device=x.device) - right[:, None], x.shape[3])
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflect(positions: Tensor, size: int) -> Tensor:
    period = max(1, 2 * (size - 1))
    positions = positions.remainder(period)
    return torch.minimum(positions, period - positions) if size > 1 else positions


def color_jitter(x: Float[Tensor, "B C H W"], factors: Float[Tensor, "B 3"]) -> Float[Tensor, "B C H W"]:
    """Brightness times a factor, then contrast about the image's mean, then saturation about each pixel's gray.

    Transparency, a fourth channel, stays as it is.
    """
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    colours, alpha = x[:, :3], x[:, 3:]
    colours = (colours * brightness).clamp(0, 1)
    mean = _gray(colours).mean((2, 3), keepdim=True)
    colours = (mean + (colours - mean) * contrast).clamp(0, 1)
    if colours.shape[1] == 3:
        gray = _gray(colours)
        colours = (gray + (colours - gray) * saturation).clamp(0, 1)
    return torch.cat([colours, alpha], 1)


def _gray(colours: Tensor) -> Tensor:
    if colours.shape[1] == 1:
        return colours
    return 0.299 * colours[:, 0:1] + 0.587 * colours[:, 1:2] + 0.114 * colours[:, 2:3]
