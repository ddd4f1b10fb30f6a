"""Augmentation on the device: each image's own numbers come from (seed, number of its draw), by counting."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.config.data import DataConfig

NUMBERS = 6
"""Random numbers an image may use: one to mirror it, two to shift it, three for its colours."""


def augment(x: Float[Tensor, "B C H W"], settings: DataConfig, seed: int, first: int) -> Float[Tensor, "B C H W"]:
    """Mirror, shift and recolour images as `settings` asks; pixels stay on the 256 levels.

    Args:
        seed: the epoch's.
        first: number of the first image's draw in its epoch; the others follow it.
    """
    if not (settings.flip or settings.crop or settings.jitter):
        return x
    numbers = uniform(len(x), seed, first, x.device)
    if settings.flip:
        x = torch.where(numbers[:, 0, None, None, None] < 0.5, x.flip(-1), x)
    if settings.crop:
        reach = 2 * settings.crop + 1
        by = (numbers[:, 1:3] * reach).long().clamp_(max=reach - 1) - settings.crop
        x = shift(x, by[:, 0], by[:, 1])
    if settings.jitter:
        x = recolour(x, 1 + settings.jitter * (2 * numbers[:, 3:] - 1))
        x = torch.div(torch.round(x * 255), 255)
    return x


def uniform(count: int, seed: int, first: int, device: torch.device) -> Float[Tensor, "B 6"]:
    """Numbers in [0, 1), a function of seed, draw and column: splitmix64 of a counter (Steele et al. 2014, OOPSLA)."""
    counter = torch.arange(first * NUMBERS, (first + count) * NUMBERS, device=device)
    words = (counter + 1) * -0x61C8864680B583EB + seed  # int64 wraps around, as the algorithm wants
    words = (words ^ _right(words, 30)) * -0x40A7B892E31B1A47
    words = (words ^ _right(words, 27)) * -0x6B2FB644ECCEEE15
    words = words ^ _right(words, 31)
    return (_right(words, 40).float() / (1 << 24)).view(count, NUMBERS)


def _right(words: Tensor, bits: int) -> Tensor:
    """Shift right, filling with zeros."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def shift(x: Float[Tensor, "B C H W"], down: Tensor, right: Tensor) -> Float[Tensor, "B C H W"]:
    """Move each image by whole pixels; what comes in is its reflection in the edge."""
    rows = _reflected(torch.arange(x.shape[2], device=x.device) - down[:, None], x.shape[2])
    columns = _reflected(torch.arange(x.shape[3], device=x.device) - right[:, None], x.shape[3])
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(places: Tensor, size: int) -> Tensor:
    period = max(1, 2 * (size - 1))
    places = places.remainder(period)
    return torch.minimum(places, period - places) if size > 1 else places


def recolour(x: Float[Tensor, "B C H W"], factors: Float[Tensor, "B 3"]) -> Float[Tensor, "B C H W"]:
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
