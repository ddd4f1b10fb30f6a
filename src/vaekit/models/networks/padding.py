"""Sizes of networks that divide both sides of an image by a power of two; others are padded at the right and
bottom."""

import math

from vaekit.errors import UserError, setting
from vaekit.models.registry import BuildContext

VECTOR_SIZE = 4
"""Side of the smallest feature maps, at least, where the latents are a vector."""


def halving_factor(context: BuildContext) -> int:
    """The power of two by which both sides are divided, rounding up.

    It follows from a latent image; for a latent vector it is the largest that leaves `VECTOR_SIZE` pixels.
    """
    _, height, width = context.shape
    factors = [2**n for n in range(13)]
    if len(context.latents) == 1:
        return max(f for f in factors if f == 1 or min(height, width) >= f * VECTOR_SIZE)
    channels, *size = context.latents
    sizes = {f: [math.ceil(height / f), math.ceil(width / f)] for f in factors}
    for factor in factors:
        if sizes[factor] == size:
            return factor
    fits = [f"{channels}x{h}x{w}" for h, w in dict.fromkeys(map(tuple, sizes.values()))]
    raise UserError(
        f"A latent image of {size[0]}x{size[1]} does not fit images of {height}x{width}.",
        f"Use {' or '.join([setting('latents', fits[-1]), *fits[-2::-1]])}.",
    )


def padded_size(context: BuildContext, factor: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size (h, w) of the image divided by `factor`, and the columns and rows that it is padded by."""
    _, height, width = context.shape
    size = math.ceil(height / factor), math.ceil(width / factor)
    return size, (size[1] * factor - width, size[0] * factor - height)
