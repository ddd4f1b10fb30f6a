"""What must be known of all images before any is decoded: sizes, values, transparency. Runs in workers."""

from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from vaekit.data.decoding.decode import VALUE_FORMATS, has_values, image_format, open_pillow, orientation_of
from vaekit.data.decoding.files import UnusableError

GROUNDS = ((255, 255, 255), (0, 0, 0), (128, 128, 128), (135, 206, 235))
"""Backgrounds that are tried for transparent images, in this order: the last one differs from all grays."""
ANIMATED = ("TIFF", "GIF", "WEBP", "PNG", "AVIF", "HEIC")
"""Formats that may hold several pages or frames."""
INVISIBLE = 24
"""Levels by which pixels differ from the background, at most, in an image that cannot be seen on it."""
THUMBNAIL = 64


class Probe(NamedTuple):
    """What the header of an image says."""

    width: int
    height: int
    pages: int
    values: bool
    """Whether it has more than 8 bits per channel or other bands than colours, so that its values matter."""
    transparent: bool


def probe(file: BinaryIO) -> Probe | None:
    """Read the header of an image; None if that fails, for which decoding will report the reason."""
    try:
        kind = image_format(file)
        image = None if kind in VALUE_FORMATS else open_pillow(file, kind)
        if image is None:
            return _probe_values(file, kind)
        with image:
            known = kind != "TIFF" and (kind != "PNG" or "exif" in image.info)  # else a PNG would be decoded
            rotated = known and orientation_of(image) >= 5
            width, height = image.size[::-1] if rotated else image.size
            pages = int(getattr(image, "n_frames", 1)) if kind in ANIMATED else 1
            transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            return Probe(width, height, pages, has_values(image), transparent)
    except Exception:
        return None


def _probe_values(file: BinaryIO, kind: str) -> Probe:
    from vaekit.data.decoding.readers import count_pages, read_values

    pages = count_pages(file, kind)
    height, width, _ = read_values(file, kind).array.shape
    return Probe(width, height, pages, values=True, transparent=False)


class Inspection(NamedTuple):
    """The values of an image, see `ValueRange`, and its channels."""

    low: float
    high: float
    white: float
    decimal: bool
    second_low: float
    second_high: float
    channels: int
    bands: bool


def inspect_values(file: BinaryIO, page: int, bands: tuple[int, ...]) -> Inspection:
    """Look at the values of an image, of the given bands or of all; of 8-bit images too."""
    import numpy as np

    from vaekit.data.decoding.readers import read_values
    from vaekit.data.decoding.values import Values, range_of

    kind = image_format(file)
    image = None if kind in VALUE_FORMATS else open_pillow(file, kind)
    if image is None or has_values(image):
        values = read_values(file, kind, page, image)
    else:
        image.seek(page)
        values = Values(np.atleast_3d(np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))))
    if bands:
        if max(bands) > values.array.shape[2]:
            raise UnusableError(f"with {values.array.shape[2]} bands, so without band {max(bands)}")
        values = Values(
            values.array[..., [band - 1 for band in bands]], values.white, bands=len(bands) not in (1, 3)
        )
    return Inspection(*range_of(values), values.array.shape[2], values.bands)


def visible_on(file: BinaryIO) -> list[bool]:
    """Whether a transparent image can be seen on each of `GROUNDS`."""
    image = open_pillow(file, image_format(file))
    if image is None:
        return [True] * len(GROUNDS)
    with image:
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        colours = image.convert("RGBA")
    seen = []
    for ground in GROUNDS:
        flat = Image.new("RGB", colours.size, ground)
        flat.paste(colours, mask=colours)
        extremes: Any = flat.getextrema()
        apart = (
            max(abs(edge - level) for edge in pair) for pair, level in zip(extremes, ground, strict=True)
        )
        seen.append(max(apart) > INVISIBLE)
    return seen
