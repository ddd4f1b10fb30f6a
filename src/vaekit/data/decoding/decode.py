"""Decode an image file to 256 levels: gray, RGB, RGBA if transparency is kept, or any number of bands.

Imports neither torch nor, unless needed, NumPy, so that worker processes start fast.
"""

import gzip
import math
from contextlib import suppress
from io import SEEK_END
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError, WebPImagePlugin  # noqa: F401  registers the format
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    EXTRASAMPLES,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    TiffImageFile,
)

from vaekit.data.decoding.color import to_srgb
from vaekit.data.decoding.files import MAX_PIXELS, UnusableError
from vaekit.data.decoding.formats import HEAD, other_kind, sniff
from vaekit.data.decoding.resize import DecodeSpec, Picture, is_gray, resize

PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
GZIP = b"\x1f\x8b"
OPACITY = (1,), (2,)
"""Extra samples of TIFF that are opacity, with colours multiplied by it or not."""
VALUE_FORMATS = ("NPY", "DICOM", "NIFTI")
"""Formats of values rather than of colours, see values.py."""


class Decoded(NamedTuple):
    picture: Picture
    size: tuple[int, int]
    """Original width and height, upright."""
    remark: str = ""
    """What was ignored in the file."""


def decode(file: BinaryIO, target: DecodeSpec, page: int = 0) -> Decoded:
    """Decode and resize an image.

    Raises:
        UnusableError: the image cannot be used; nothing else is raised, whatever the file contains.
    """
    try:
        return _decode(file, target, page)
    except UnusableError:
        raise
    except Exception as error:
        raise UnusableError(_reason(error, file)) from error


def _decode(file: BinaryIO, target: DecodeSpec, page: int) -> Decoded:
    kind = image_format(file)
    image = None if kind in VALUE_FORMATS else open_pillow(file, kind)
    if image is None:
        picture, remark = _picture_of_values(file, kind, page, None, target)
        return Decoded(resize(picture, target), _size_of(picture), remark)
    with image:
        if image.size[0] * image.size[1] > MAX_PIXELS:
            raise UnusableError("over 100 million pixels")
        if page:
            image.seek(page)
        stored, remark, extent = image.size, "", None
        if has_values(image):
            picture, remark = _picture_of_values(file, kind, page, image, target)
            orientation = orientation_of(image)
        else:
            extent = _draft(image, target)
            image.load()
            if kind == "PNG" and _is_cut(file):
                raise UnusableError("truncated")
            # Read after loading, since a PNG may store it at its end, and Pillow rotates a TIFF itself.
            orientation = orientation_of(image)
            stored = image.size if extent is None else stored
            converted, remark = to_srgb(image)
            picture = in_range(to_rgb(converted, target), target)
        upright = stored[::-1] if orientation >= 5 else stored
        return Decoded(resize(picture, target, extent, orientation), upright, remark)


def _picture_of_values(
    file: BinaryIO, kind: str, page: int, image: Image.Image | None, target: DecodeSpec
) -> tuple[Picture, str]:
    """The values of an image as 256 levels, and what was ignored."""
    from vaekit.data.decoding.readers import read_values
    from vaekit.data.decoding.values import NOT_FINITE, is_finite, to_levels

    values = read_values(file, kind, page, image)
    remark = "" if is_finite(values) else NOT_FINITE
    levels = to_levels(values, target.level_limits if values.is_8_bit else target.limits)
    bands = tuple(Image.fromarray(levels[..., band]) for band in range(levels.shape[2]))
    if target.bands:
        return _taken(bands, target.bands), remark
    if values.bands:
        return bands, remark
    merged = Image.merge({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(bands)], bands)
    if image is not None:
        merged.info["icc_profile"] = image.info.get("icc_profile")
        merged, ignored = to_srgb(merged)
        remark = remark or ignored
    return to_rgb(merged, target), remark


def _size_of(picture: Picture) -> tuple[int, int]:
    return picture[0].size if isinstance(picture, tuple) else picture.size


def image_format(file: BinaryIO) -> str:
    """The format of an image by its first bytes; UnusableError for what is no image of a supported format."""
    file.seek(0)
    head = file.read(HEAD)
    kind = sniff(head)
    if head.startswith(GZIP):
        file.seek(0)
        with gzip.open(file) as unpacked:
            kind = "NIFTI" if sniff(unpacked.read(HEAD)) == "NIFTI" else None
    if kind is None:
        raise UnusableError(other_kind(file) or "not in a supported format")
    if kind not in PILLOW_FORMATS and kind not in VALUE_FORMATS and kind != "HEIC":
        raise UnusableError(f"{kind} (convert it to PNG)")
    return kind


def open_pillow(file: BinaryIO, kind: str) -> Image.Image | None:
    """An open image; None for a TIFF file of bands that Pillow does not know."""
    file.seek(0)
    if kind == "HEIC":
        try:
            from pillow_heif import HeifImageFile
        except ImportError:
            raise UnusableError("HEIC (pip install 'vaekit[heic]' to read it)") from None
        opened: Image.Image = HeifImageFile(file)
        return opened
    if kind == "AVIF" and kind not in Image.registered_extensions().values():
        raise UnusableError("AVIF (needs a newer Pillow: pip install --upgrade pillow)")
    try:
        return Image.open(file, formats=[kind])
    except UnidentifiedImageError:
        if kind == "TIFF":  # of more bands than Pillow knows
            return None
        raise


def has_values(image: Image.Image) -> bool:
    """Whether an open image has more than 8 bits per channel, or other bands than colours."""
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    if isinstance(image, TiffImageFile):
        return _tiff_has_values(image)
    tiles: Any = getattr(image, "tile", None)
    raw: Any = tiles[0][3] if tiles else None
    if image.format == "PPM" and tiles[0][0] == "ppm":
        return bool(raw[1] > 255)
    return ";16" in str(raw[0] if isinstance(raw, tuple) else raw)


def _tiff_has_values(image: TiffImageFile) -> bool:
    """By the tags of a TIFF file, since Pillow cuts some of 16 bits to 8, and drops bands."""
    tags = image.tag_v2
    bits, formats = tags.get(BITSPERSAMPLE, (1,)), tags.get(SAMPLEFORMAT, (1,))
    if max(bits) > 8 or set(formats) != {1}:  # 1: unsigned
        return True
    colours = {0: 1, 1: 1, 2: 3}.get(tags.get(PHOTOMETRIC_INTERPRETATION, -1))
    surplus = 0 if colours is None else tags.get(SAMPLESPERPIXEL, 1) - colours
    return surplus > 1 or (surplus == 1 and tuple(tags.get(EXTRASAMPLES, (0,))) not in OPACITY)


def to_rgb(image: Image.Image, target: DecodeSpec) -> Image.Image:
    """Convert a loaded image to L, RGB or RGBA; composite transparency unless `target` keeps it."""
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
    return ground.convert("L") if gray and is_gray(target.background) else ground


def channels_of(picture: Picture) -> int:
    return len(picture) if isinstance(picture, tuple) else len(picture.getbands())


def in_range(picture: Image.Image, target: DecodeSpec) -> Picture:
    """A picture of 8 bits with the bands and the range of values that are asked for."""
    if target.level_limits:
        low, high = target.level_limits
        scale = 255 / max(high - low, 1e-12)
        table = [min(255, max(0, round((level - low) * scale))) for level in range(256)]
        tables = table * len(picture.getbands())
        if picture.mode == "RGBA":
            tables[-256:] = range(256)
        picture = picture.point(tables)
    return _taken(picture.split(), target.bands) if target.bands else picture


def _taken(bands: tuple[Image.Image, ...], numbers: tuple[int, ...]) -> Picture:
    if max(numbers) > len(bands):
        count = "1 band" if len(bands) == 1 else f"{len(bands)} bands"
        raise UnusableError(f"with {count}, so without band {max(numbers)}")
    taken = tuple(bands[number - 1] for number in numbers)
    if len(taken) == 1:
        return taken[0]
    return Image.merge("RGB", taken) if len(taken) == 3 else taken


def _draft(image: Image.Image, target: DecodeSpec) -> tuple[float, float] | None:
    """Let a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, at a fraction of the cost; return its extent.

    At twice the target or more, the result is within half a level, on average, of a full decode.
    """
    if not isinstance(image, JpegImageFile):
        return None
    rotated = orientation_of(image) >= 5
    width, height = image.size[::-1] if rotated else image.size
    across, down = target.width / width, target.height / height
    if target.fit != "stretch":
        across = down = (max if target.fit == "crop" else min)(across, down)
    minimum = math.ceil(2 * width * across), math.ceil(2 * height * down)
    drafted = image.draft(None, minimum[::-1] if rotated else minimum)
    return None if drafted is None else (drafted[1][2], drafted[1][3])


def orientation_of(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF data do not make the image unusable
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _gray_palette(image: Image.Image) -> bool:
    palette = image.getpalette("RGB") or []
    used = image.getcolors(256) or []
    colours = [palette[3 * index : 3 * index + 3] for _, index in used if isinstance(index, int)]
    return all(colour and min(colour) == max(colour) for colour in colours)


def _reason(error: Exception, file: BinaryIO) -> str:
    text = str(error).lower()
    if isinstance(error, Image.DecompressionBombError):
        return "over 100 million pixels"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if "truncated" in text or isinstance(error, EOFError) or _ends_early(file):
        return "truncated"
    with suppress(Exception):
        if kind := sniff(_head(file)):
            if isinstance(error, UnidentifiedImageError):
                return f"damaged {kind}"
            return f"damaged {kind} ({' '.join(str(error).split())[:100] or type(error).__name__})"
    return other_kind(file) or f"damaged ({' '.join(str(error).split())[:100] or type(error).__name__})"


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(HEAD)


def _is_cut(file: BinaryIO) -> bool:
    """Whether a PNG file ends in zeros, as an unfinished download may, which Pillow reads."""
    file.seek(0, SEEK_END)
    file.seek(max(0, file.tell() - HEAD))
    if file.read().strip(b"\0"):
        return False
    file.seek(0)
    return b"IEND" not in file.read()


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
