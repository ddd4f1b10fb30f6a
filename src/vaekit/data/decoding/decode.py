"""Decode an image file to one of three Pillow modes: L (gray), RGB, or RGBA if transparency is kept.

Imports neither torch nor, unless needed, NumPy, so that worker processes start fast.
"""

import math
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError, WebPImagePlugin  # noqa: F401  registers the format
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 100_000_000
"""Larger images are not decoded: a small file can expand to more than all memory."""
EXIF_TRANSPOSE = {  # EXIF orientation -> the operation that makes the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ResizeSpec(NamedTuple):
    """Size and form of the decoded image; `fit` is crop, pad or stretch."""

    width: int
    height: int
    fit: str
    background: tuple[int, int, int]
    keep_alpha: bool


class UnusableError(Exception):
    """An image that cannot be used; the text is the reason, as a phrase that can follow "1 file skipped:"."""


def decode(file: BinaryIO, target: ResizeSpec) -> tuple[Image.Image, tuple[int, int]]:
    """Decode and resize an image; return it with its original (width, height), upright.

    Raises:
        UnusableError: the image cannot be used; nothing else is raised, whatever the file contains.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            stored = image.size
            if stored[0] * stored[1] > MAX_PIXELS:
                raise UnusableError("over 100 million pixels")
            extent = _draft(image, target)
            image.load()
            # Read after loading, since a PNG may store it at its end, and Pillow rotates a TIFF itself.
            orientation = _orientation(image)
            if extent is None:
                stored = image.size
            upright = stored[::-1] if orientation >= 5 else stored
            return resize(to_rgb(image, target), target, extent, orientation), upright
    except UnusableError:
        raise
    except Exception as error:
        raise UnusableError(_reason(error, file)) from error


def probe(file: BinaryIO) -> tuple[int, int] | None:
    """Read the upright (width, height) of an image from the header of its file; None if there is none."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            rotated = isinstance(image, JpegImageFile) and _orientation(image) >= 5
            return image.size[::-1] if rotated else image.size
    except Exception:  # decoding will report the reason
        return None


def to_rgb(image: Image.Image, target: ResizeSpec) -> Image.Image:
    """Convert a loaded image to L, RGB or RGBA; composite transparency unless `target` keeps it."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bits(image)
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert(image.mode.upper())
    gray = image.mode in ("1", "L", "LA") or (image.mode == "P" and _gray_palette(image))
    if not image.has_transparency_data:
        return image.convert("L" if gray else "RGB")
    colours = image.convert("RGBA")
    if target.keep_alpha:
        return colours
    ground = Image.new("RGB", image.size, target.background)
    ground.paste(colours, mask=colours)
    return ground.convert("L") if gray and _is_gray(target.background) else ground


def resize(
    image: Image.Image, target: ResizeSpec, extent: tuple[float, float] | None = None, orientation: int = 1
) -> Image.Image:
    """Resize an L, RGB or RGBA image to exactly the target's width and height, then rotate it.

    Args:
        image: the image as stored, not yet rotated.
        target: size and fit.
        extent: width and height of the picture within `image`, by default all of it. A JPEG that was decoded
            at a reduced size may end within a pixel.
        orientation: EXIF orientation of `image`.
    """
    if target.fit == "pad" and image.mode == "L" and not _is_gray(target.background):
        image = image.convert("RGB")
    width, height = extent or image.size
    size = target.width, target.height
    unrotated = size[::-1] if orientation >= 5 else size
    box = 0.0, 0.0, width, height
    if target.fit == "pad":
        scale = min(unrotated[0] / width, unrotated[1] / height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        small = _rotate(image.resize(inner, Image.Resampling.LANCZOS, box), orientation)
        colour = {"L": target.background[:1], "RGB": target.background, "RGBA": (0, 0, 0, 0)}[image.mode]
        canvas = Image.new(image.mode, size, colour)
        canvas.paste(small, ((size[0] - small.width) // 2, (size[1] - small.height) // 2))
        return canvas
    if target.fit == "crop":
        scale = max(unrotated[0] / width, unrotated[1] / height)
        if scale == 1:  # crop at whole pixels, without resampling
            image = _rotate(image, orientation)
            x, y = (image.width - size[0]) // 2, (image.height - size[1]) // 2
            return image.crop((x, y, x + size[0], y + size[1]))
        covered = unrotated[0] / scale, unrotated[1] / scale
        left, top = max(0.0, (width - covered[0]) / 2), max(0.0, (height - covered[1]) / 2)
        box = left, top, min(left + covered[0], width), min(top + covered[1], height)
    return _rotate(image.resize(unrotated, Image.Resampling.LANCZOS, box), orientation)


def _rotate(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(EXIF_TRANSPOSE[orientation]) if orientation in EXIF_TRANSPOSE else image


def to_bytes(image: Image.Image, channels: int) -> bytes:
    """The pixels [H, W, C] of an L, RGB or RGBA image, with 1 (gray), 3 (colour) or 4 (alpha) channels."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    return (image if image.mode == mode else image.convert(mode)).tobytes()


def _draft(image: Image.Image, target: ResizeSpec) -> tuple[float, float] | None:
    """Let a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, at a fraction of the cost; return its extent.

    At twice the target or more, the result is within half a level, on average, of a full decode.
    """
    if not isinstance(image, JpegImageFile):
        return None
    rotated = _orientation(image) >= 5
    width, height = image.size[::-1] if rotated else image.size
    across, down = target.width / width, target.height / height
    if target.fit != "stretch":
        across = down = (max if target.fit == "crop" else min)(across, down)
    minimum = math.ceil(2 * width * across), math.ceil(2 * height * down)
    drafted = image.draft(None, minimum[::-1] if rotated else minimum)
    return None if drafted is None else (drafted[1][2], drafted[1][3])


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF data do not make the image unusable
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert gray values of 9 to 16 bits, or floats in [0, 1], to mode L; LA if a value is transparent."""
    import numpy as np

    values = np.asarray(image)
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # also false for NaN
            raise UnusableError("with float values outside 0 to 1")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    bits, inverted = 16, False
    if isinstance(image, TiffImageFile):
        bits = min(16, int(np.atleast_1d(image.tag_v2.get(258, 16))[0]))
        # WhiteIsZero, which Pillow handles for 8 bits only
        inverted = image.mode != "I" and image.tag_v2.get(262) == 0
    white = (1 << bits) - 1
    if values.min() < 0 or values.max() > white:
        raise UnusableError(f"with values of more than {bits} bits")
    scaled = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    gray = Image.fromarray(255 - scaled if inverted else scaled)
    transparent_value = image.info.get("transparency")
    if isinstance(transparent_value, int):
        gray.putalpha(Image.fromarray(np.where(values == transparent_value, 0, 255).astype(np.uint8)))
    return gray


def _gray_palette(image: Image.Image) -> bool:
    palette = image.getpalette("RGB") or []
    used = image.getcolors(256) or []
    colours = [palette[3 * index : 3 * index + 3] for _, index in used if isinstance(index, int)]
    return all(colour and min(colour) == max(colour) for colour in colours)


def _is_gray(colour: tuple[int, int, int]) -> bool:
    return min(colour) == max(colour)


def _reason(error: Exception, file: BinaryIO) -> str:
    text = str(error).lower()
    if isinstance(error, Image.DecompressionBombError):
        return "over 100 million pixels"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if "truncated" in text or isinstance(error, EOFError) or _ends_early(file):
        return "truncated"
    if isinstance(error, UnidentifiedImageError):
        return "not in a supported format (JPEG, PNG, WebP, BMP, TIFF, GIF)"
    return f"damaged ({' '.join(str(error).split())[:100] or type(error).__name__})"


def _ends_early(file: BinaryIO) -> bool:
    """Whether a file lacks the end of its format, which Pillow does not always report."""
    try:
        file.seek(0)
        data = file.read()
    except (OSError, ValueError, MemoryError):
        return False
    if data[:4] == b"RIFF" and len(data) >= 12:
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    ends = {b"\x89PNG\r\n\x1a\n": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
    return any(data.startswith(start) and end not in data[-4096:] for start, end in ends.items())
