"""Augmentation on the device, with random numbers that depend on seed and draw alone."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.config.data import DataConfig
from vaekit.utils.random import GOLDEN_GAMMA, splitmix64, unit_interval

ImageBatch = Float[Tensor, "B C H W"]
NUMBERS_PER_IMAGE = 6
"""Random numbers per image: one for the flip, two for the shift, three for the colours."""


def augment(x: ImageBatch, settings: DataConfig, seed: int, first_draw: int) -> ImageBatch:
    """Flip, shift and jitter the colours of images in [0, 1]; pixels stay on the 256 levels.

    `first_draw` is the number of the first image's draw in the epoch with this seed; the others follow.
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
    """Random numbers in [0, 1) that depend on seed, draw and column alone: splitmix64 of a counter."""
    draws = first_draw, first_draw + count
    counter = torch.arange(*(NUMBERS_PER_IMAGE * draw for draw in draws), device=device)
    return unit_interval(splitmix64((counter + 1) * GOLDEN_GAMMA + seed)).view(count, NUMBERS_PER_IMAGE)


def shift(x: ImageBatch, down: Tensor, right: Tensor) -> ImageBatch:
    """Shift each image by whole pixels, filling with its reflection at the edge."""
    rows = _reflect(torch.arange(x.shape[2], device=x.device) - down[:, None], x.shape[2])
    columns = _reflect(torch.arange(x.shape[3], device=x.device) - right[:, None], x.shape[3])
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflect(positions: Tensor, size: int) -> Tensor:
    period = max(1, 2 * (size - 1))
    positions = positions.remainder(period)
    return torch.minimum(positions, period - positions)


def color_jitter(x: ImageBatch, factors: Float[Tensor, "B 3"]) -> ImageBatch:
    """Scale brightness, then contrast about the image's mean, then saturation about each pixel's gray value.

    A fourth channel (transparency) is left unchanged.
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
