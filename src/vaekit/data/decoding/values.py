"""Images whose values do not fit in 8 bits, or that have other channels than colours: as arrays.

Their values become 256 levels by one range for all images of a data set, never image by image.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.data.decoding.files import UnusableError

OF_THE_SET = "the lowest to the highest value of the set"
NOT_FINITE = "values that are no data, NaN or infinite, read as black"
"""What is said of an image with some of them."""
NEARLY = 0.05
"""Decimal values are taken for values from 0 to 1 if they exceed it by no more than this."""


class Values(NamedTuple):
    """The values of an image, in its own units."""

    array: NDArray[Any]
    """[H, W, C], integers or floats."""
    white: float = 0
    """The value that the file declares to be white, or the highest that its type can hold; 0 if unknown."""
    alpha: bool = False
    """Whether the last channel is opacity."""
    bands: bool = False
    """Whether the channels are neither gray values nor red, green and blue."""

    @property
    def is_8_bit(self) -> bool:
        return self.array.dtype == np.uint8


class ValueRange(NamedTuple):
    """What the survey of a data set notes of one image."""

    low: float
    high: float
    white: float
    decimal: bool
    second_low: float
    """The lowest and the highest value between the two; these themselves if there is none."""
    second_high: float


def is_finite(values: Values) -> bool:
    """Whether no value is NaN or infinite."""
    return values.array.dtype.kind != "f" or bool(np.isfinite(values.array).all())


def range_of(values: Values) -> ValueRange:
    """The lowest and the highest finite value of an image; UnusableError if there is none."""
    array = values.array[..., :-1] if values.alpha else values.array
    if array.dtype.kind == "f":
        array = array[np.isfinite(array)]
        if not array.size:
            raise UnusableError("without a finite value")
    low, high = array.min(), array.max()
    between = array[(array > low) & (array < high)]
    second = (between.min(), between.max()) if between.size else (low, high)
    numbers = (float(low), float(high), values.white, array.dtype.kind == "f")
    return ValueRange(*numbers, float(second[0]), float(second[1]))


def to_levels(values: Values, limits: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Map values linearly to the levels 0 to 255, from `limits` (low, high), by default by their bits.

    Values outside are clipped, and those that are not finite become 0, as those of no data in TIFF files.
    Opacity is scaled by its type.

    Raises:
        UnusableError: no value is finite, or `limits` are needed and not given.
    """
    array = values.array
    present = range_of(values)
    low, high, why = (*limits, "") if limits else choose_range([present])
    if why == OF_THE_SET:
        raise UnusableError(f"with values from {present.low:g} to {present.high:g}, whose range is not known")
    opacity = array[..., -1:] if values.alpha else None
    colours = array[..., :-1] if values.alpha else array
    finite = np.where(np.isfinite(colours), colours, low).astype(np.float64)
    scaled = np.clip((finite - low) * (255 / max(high - low, 1e-12)), 0, 255)
    levels = np.rint(scaled).astype(np.uint8)
    if opacity is None:
        return levels
    full = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1.0
    return np.concatenate([levels, np.rint(opacity * (255.0 / full)).astype(np.uint8)], axis=2)


def choose_range(images: list[ValueRange]) -> tuple[float, float, str]:
    """The values that become black and white, for all images of a data set, and why.

    - Decimal values within 0.05 of 0 to 1 are read as 0 to 1, and others from 128 to 255 at most as 0 to 255.
    - Integers that are not negative are read by the bits that they need, up to 4,080 as 12 bits, 0 to 4,095;
      or by those that all files declare.
    - Anything else is read from the lowest to the highest value of the set.
    """
    low, high = min(image.low for image in images), max(image.high for image in images)
    declared = {image.white for image in images}
    if any(image.decimal for image in images):
        if low >= -NEARLY and high <= 1 + NEARLY:
            return 0.0, 1.0, "decimal values, read as 0 to 1"
        if low >= 0 and 128 <= high <= 255:
            return 0.0, 255.0, "decimal values of 8 bits"
    elif low >= 0 and high < 2**16:
        if len(declared) == 1 and 0 < (white := declared.pop()) < 2**16 - 1:
            return 0.0, white, f"{round(white + 1).bit_length() - 1} bits, as the files say"
        bits = max(8, int(high).bit_length())
        return 0.0, float(2**bits - 1), f"{bits} bits"
    return low, max(high, low + 1e-6), OF_THE_SET
