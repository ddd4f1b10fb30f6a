"""Settings of the data: how images are read and augmented. Free of torch."""

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from vaekit.config.base import BaseConfig


class DataConfig(BaseConfig):
    """How images are read and augmented."""

    size: str | None = None
    """Image size in pixels: 64 (square) or 96x64 (width x height). By default it is chosen from the data."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """Resize by crop (cut edges), pad (add borders) or stretch."""
    background: str = "auto"
    """Colour of transparent pixels and padding: a name, #rrggbb, or auto for white, unless transparent images
    cannot be seen on it."""
    alpha: Literal["composite", "keep"] = "composite"
    """Composite transparent pixels, or keep alpha as a channel."""
    range: str = "auto"
    """Pixel values that become black and white, such as 0:4095; auto: by the bits that images of more than 8
    bits use; auto-set: the lowest and the highest of all images."""
    bands: str | None = None
    """Bands to read of images of several, such as 3,2,1; by default all."""
    pages: str = "first"
    """Pages, frames or slices to read of files of several: first, middle, all, or a number."""
    include: str | None = None
    """Read only files whose paths match one of these patterns, such as 'photos/*,*.jpg'."""
    exclude: str | None = None
    """Leave out files whose paths match one of these patterns, such as 'masks/*'."""
    links: Literal["inside", "follow"] = "inside"
    """Links to read: those to files inside the folder, or all."""
    split_folders: Literal["auto", "always", "never"] = "auto"
    """Whether folders named train, validation, test and the like are splits."""
    copies: Literal["auto", "keep", "drop"] = "auto"
    """Keep equal images, or drop all but one of each; auto: drop those in folders, keep those in arrays."""
    labels: str | None = None
    """Table of labels: a .csv, .json or .parquet file with a row for each image, instead of class folders."""
    label_column: str | None = None
    """Column of the labels in the table; by default label, class and the like, or the only one."""
    condition: str | None = None
    """Columns of the table of labels to condition on, such as age,smiling, to choose them for new images."""
    group: str | None = None
    """Images that stay in one split: folder for those of a folder, or a regular expression for the part of
    their paths that they share, such as 'patient_(\\d+)'."""
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

    @field_validator("range")
    @classmethod
    def _range(cls, value: str) -> str:
        if value in ("auto", "auto-set"):
            return value
        low, _, high = value.partition(":")
        try:
            ordered = float(low) < float(high)
        except ValueError:
            ordered = False
        if not ordered:
            raise ValueError("must be auto, auto-set, or the values of black and white such as 0:4095")
        return value

    @field_validator("bands", mode="before")
    @classmethod
    def _bands(cls, value: Any) -> Any:
        if value is None or value == "None":
            return None
        numbers = [str(part).strip() for part in _parts(value)]
        if not all(number.isdecimal() and 1 <= int(number) <= 1000 for number in numbers):
            raise ValueError("must be numbers from 1 such as 3,2,1")
        return ",".join(numbers)

    @field_validator("pages", mode="before")
    @classmethod
    def _pages(cls, value: Any) -> Any:
        text = str(value)
        if text not in ("first", "middle", "all") and not (text.isdecimal() and int(text) >= 1):
            raise ValueError("must be first, middle, all, or a number from 1")
        return text

    @field_validator("include", "exclude", mode="before")
    @classmethod
    def _patterns(cls, value: Any) -> Any:
        return None if value is None or value == "None" else ",".join(str(part) for part in _parts(value))

    @field_validator("condition", mode="before")
    @classmethod
    def _condition(cls, value: Any) -> Any:
        if value is None or value == "None":
            return None
        names = [str(part).strip() for part in _parts(value)]
        if "" in names or len(set(names)) < len(names):
            raise ValueError("must be different names of columns such as age,smiling")
        return ",".join(names)

    @field_validator("group")
    @classmethod
    def _group(cls, value: str | None) -> str | None:
        if value is None or value in ("None", "folder"):
            return None if value != "folder" else value
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"must be folder, or a regular expression ({error})") from None
        return value

    @field_validator("background")
    @classmethod
    def _background(cls, value: str) -> str:
        from PIL import ImageColor

        if value == "auto":
            return value
        try:
            ImageColor.getrgb(value)
        except ValueError:
            raise ValueError("must be auto, or a colour such as white, black or #ff8800") from None
        return value

    @property
    def band_numbers(self) -> tuple[int, ...]:
        """The bands to read, counted from 1; empty for all."""
        return tuple(int(number) for number in (self.bands or "").split(",") if number)

    @property
    def limits(self) -> tuple[float, float] | None:
        """The values that become black and white, or None where the images decide."""
        if self.range in ("auto", "auto-set"):
            return None
        low, _, high = self.range.partition(":")
        return float(low), float(high)

    @property
    def width_height(self) -> tuple[int, int] | None:
        """The requested size as (width, height) in pixels, or None."""
        if self.size is None:
            return None
        width, _, height = self.size.partition("x")
        return int(width), int(height or width)


def _parts(value: Any) -> Sequence[Any]:
    """The items of a list, or of a text with commas."""
    return (
        value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    )
