"""Settings of the data: how images are read and augmented. Free of torch."""

from typing import Any, Literal

from pydantic import Field, field_validator

from vaekit.config.base import BaseConfig


class DataConfig(BaseConfig):
    """How images are read and augmented."""

    size: str | None = None
    """Image size in pixels: 64 (square) or 96x64 (width x height). By default it is chosen from the data."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """Resize by crop (cut edges), pad (add borders) or stretch."""
    background: str = "white"
    """Colour of transparent pixels and padding: a name or #rrggbb."""
    alpha: Literal["composite", "keep"] = "composite"
    """Composite transparent pixels, or keep alpha as a channel."""
    validation: str = "0.1"
    """Validation set: a fraction, or last:N for the last N images. A fraction is chosen by the hash of each
    file."""
    flip: bool = False
    """Randomly flip half of the images horizontally."""
    crop: int = Field(0, ge=0, le=64)
    """Randomly shift by up to this many pixels (reflected edges)."""
    jitter: float = Field(0.0, ge=0, le=1)
    """Vary brightness, contrast and saturation by up to this fraction."""
    balance: bool = False
    """Sample every class equally often."""

    @field_validator("size", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        if value is None or value == "None":
            return None
        if isinstance(value, (tuple, list)) and len(value) == 2:
            value = f"{value[0]}x{value[1]}"
        lengths = str(value).lower().split("x")
        if not (len(lengths) in (1, 2) and all(s.isdecimal() and 1 <= int(s) <= 4096 for s in lengths)):
            raise ValueError("must be 64 or 96x64 (width x height), each side from 1 to 4096 pixels")
        return "x".join(str(int(length)) for length in lengths)

    @field_validator("validation", mode="before")
    @classmethod
    def _validation(cls, value: Any) -> Any:
        text = str(value)
        if text.startswith("last:") and text[5:].isdecimal() and int(text[5:]) >= 1:
            return f"last:{int(text[5:])}"
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0 < share < 1:
            raise ValueError("must be a fraction between 0 and 1 such as 0.1, or last:N with N of at least 1")
        return text

    @field_validator("background")
    @classmethod
    def _background(cls, value: str) -> str:
        from PIL import ImageColor

        try:
            ImageColor.getrgb(value)
        except ValueError:
            raise ValueError("must be a colour such as white, black or #ff8800") from None
        return value

    @property
    def width_height(self) -> tuple[int, int] | None:
        """The requested size as (width, height) in pixels, or None."""
        if self.size is None:
            return None
        width, _, height = self.size.partition("x")
        return int(width), int(height or width)
