"""Resizing of decoded images, and their pixels as bytes."""

from typing import NamedTuple

from PIL import Image

EXIF_TRANSPOSE = {  # EXIF orientation -> the operation that makes the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Picture = Image.Image | tuple[Image.Image, ...]
"""An image of mode L, RGB or RGBA, or one of mode L for each of other bands."""


class DecodeSpec(NamedTuple):
    """What all images of a data set become: their size, and how their values are read."""

    width: int
    height: int
    fit: str
    """crop, pad or stretch."""
    background: tuple[int, int, int]
    keep_alpha: bool
    limits: tuple[float, float] | None = None
    """The values that become black and white, of images of more than 8 bits; None: by the bits of each."""
    level_limits: tuple[float, float] | None = None
    """The same for images of 8 bits; None leaves them as they are."""
    bands: tuple[int, ...] = ()
    """The bands to take, counted from 1; empty for all."""


def resize(
    picture: Picture, target: DecodeSpec, extent: tuple[float, float] | None = None, orientation: int = 1
) -> Picture:
    """Resize a picture to exactly the target's width and height, then rotate it.

    Args:
        picture: the image as stored, not yet rotated.
        target: size and fit.
        extent: width and height of the part of it that is shown, by default all of it. A JPEG that was
            decoded at a reduced size may end within a pixel.
        orientation: EXIF orientation of `image`.
    """
    if isinstance(picture, tuple):
        return tuple(_resize(band, target, extent, orientation) for band in picture)
    return _resize(picture, target, extent, orientation)


def _resize(
    image: Image.Image, target: DecodeSpec, extent: tuple[float, float] | None, orientation: int
) -> Image.Image:
    if target.fit == "pad" and image.mode == "L" and not is_gray(target.background):
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


def to_bytes(picture: Picture, channels: int) -> bytes:
    """The pixels [H, W, C] of a picture, with 1 (gray), 3 (colour) or 4 (alpha) channels, or those of its
    bands."""
    if isinstance(picture, tuple):
        return b"".join(map(bytes, zip(*(band.tobytes() for band in picture), strict=True)))
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    return (picture if picture.mode == mode else picture.convert(mode)).tobytes()


def is_gray(colour: tuple[int, int, int]) -> bool:
    return min(colour) == max(colour)
