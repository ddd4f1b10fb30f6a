"""How the values of images become 256 levels, recorded so that other images are read in the same way."""

from dataclasses import dataclass
from typing import Any

from PIL import ImageColor

from vaekit.config.data import DataConfig
from vaekit.data.decoding.resize import DecodeSpec


@dataclass(frozen=True)
class Reading:
    """How the values of a data set became 256 levels, so that other images are read in the same way."""

    limits: tuple[float, float] | None = None
    """The values that became black and white, of images of more than 8 bits."""
    level_limits: tuple[float, float] | None = None
    """The same of images of 8 bits; None if they were left as they are."""
    background: str = "white"


def decode_spec(settings: DataConfig, width: int, height: int, reading: Reading | None = None) -> DecodeSpec:
    """What images become; without `reading`, values are read as the settings say."""
    if reading is None:
        reading = Reading(settings.limits, settings.limits, settings.background)
    return DecodeSpec(
        width,
        height,
        settings.fit,
        background_colour(reading.background),
        settings.alpha == "keep",
        reading.limits,
        reading.level_limits,
        settings.band_numbers,
    )


def background_colour(name: str) -> tuple[int, int, int]:
    """The colour of a background; "auto" is white."""
    colour: Any = ImageColor.getrgb("white" if name == "auto" else name)
    return colour[0], colour[1], colour[2]
