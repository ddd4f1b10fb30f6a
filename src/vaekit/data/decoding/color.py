"""Conversion of embedded colour profiles to sRGB."""

import io
from functools import lru_cache

from PIL import Image, ImageCms

SRGB = "sRGB"
"""Part of the descriptions of the profiles that need no conversion."""
DAMAGED_PROFILE = "damaged colour profile ignored"
UNFIT_PROFILE = "colour profile for other colours ignored"
MODES = {"RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB", "L": "RGB", "LAB": "RGB"}
"""Mode of an image with a profile -> mode after the conversion."""
SPACES = {"RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK", "L": "GRAY", "LAB": "Lab"}
"""Mode of an image -> colours of the profiles that fit it."""


def to_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Convert a loaded image with an embedded profile, or in CIELAB, to sRGB; also say what was ignored.

    Display P3 and Adobe RGB have other primaries than sRGB: read as sRGB, their colours are too pale. The
    inks of CMYK have no colours without a profile. Gray images stay gray.
    """
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("P", "PA"):
        image = _with_info(image.convert("RGBA" if image.has_transparency_data else "RGB"), image)
    if profile and image.mode == "LA":
        gray, remark = to_srgb(_with_info(image.getchannel("L"), image))
        return Image.merge("LA", (gray, image.getchannel("A"))), remark
    if image.mode not in MODES or not (profile or image.mode == "LAB"):
        return image, ""
    try:
        if image.mode == "L" and _space(profile) == "RGB":  # levels for three equal colours
            return to_srgb(_with_info(image.convert("RGB"), image))[0].convert("L"), ""
        if profile and _space(profile) != SPACES[image.mode]:
            return image, UNFIT_PROFILE
        transform = _transform(profile, image.mode)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return image, DAMAGED_PROFILE
    if transform is None:
        return image, ""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        return image, DAMAGED_PROFILE
    converted = converted.convert("L") if image.mode == "L" else converted
    if alpha is not None:
        converted.putalpha(alpha)
    converted.info |= {name: value for name, value in image.info.items() if name == "transparency"}
    return converted, ""


def _with_info(image: Image.Image, other: Image.Image) -> Image.Image:
    image.info["icc_profile"] = other.info["icc_profile"]
    return image


@lru_cache(maxsize=64)
def _space(profile: bytes) -> str:
    """The colours that a profile is for, such as RGB, GRAY or CMYK."""
    return str(ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space).strip()


@lru_cache(maxsize=64)
def _transform(profile: bytes | None, mode: str) -> "ImageCms.ImageCmsTransform | None":
    """The conversion from a profile, by default from CIELAB; None if it is sRGB already."""
    source: ImageCms.ImageCmsProfile
    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        description = ImageCms.getProfileDescription(source)
        if mode in ("RGB", "RGBA") and SRGB in description and "linear" not in description.lower():
            return None
    target = ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.buildTransform(source, target, mode, MODES[mode], intent)
