"""Arrays of images in memory: their shapes and values, and what to do where these are not those of images."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.data.decoding.decode import has_values, to_rgb
from vaekit.data.decoding.readers import MAX_CHANNELS
from vaekit.data.decoding.resize import DecodeSpec
from vaekit.data.decoding.values import Values, to_levels
from vaekit.errors import UserError, setting

Pixels = NDArray[np.uint8]
Limits = tuple[float, float] | None
ROUNDING = 1e-3
"""Floats outside 0 to 1 by no more than this are taken for rounded."""
OVERSHOOT = 0.1
"""Floats outside 0 to 1 by no more than this are advised to be clipped."""
COLOURS = (1, 3, 4)


def to_uint8_images(value: Any, name: str = "the array") -> Pixels:
    """Convert images in memory to uint8 [N, H, W, C].

    Args:
        value: an array [N, H, W] or [N, H, W, C], a torch tensor [N, H, W] or [N, C, H, W], or a list of
            either; uint8, bool, integers from 0 to 255, or floats in [0, 1], which are rounded to 256 levels.
        name: name of the images in messages.
    """
    images = to_nhwc(value, name)
    check_pixels(images, name)
    return as_uint8(images)


def to_nhwc(value: Any, name: str) -> NDArray[Any]:
    """Convert images to [N, H, W, C], without copying if possible; the dtype stays."""
    if isinstance(value, (list, tuple)) and len(value) and all(isinstance(one, Image.Image) for one in value):
        value = _arrays_of(value)
    if isinstance(value, (list, tuple)) and len(value) and all(map(is_tensor, value)):
        torch = sys.modules["torch"]
        if len({tuple(one.shape) for one in value}) > 1:
            raise _differ(name)
        value = torch.stack(list(value))
    if is_tensor(value):
        tensor = value.detach().cpu()
        array: NDArray[Any] = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        if array.ndim == 4 and array.shape[1] in COLOURS:
            array = array.transpose(0, 2, 3, 1)
    else:
        try:
            array = np.asarray(value)
        except ValueError:
            raise _differ(name) from None
    if array.dtype.kind in "OUS":
        hint = "Give an array of numbers; of files, give their folder."
        raise UserError(f"{name[:1].upper()}{name[1:]} has {_objects(array)} in the place of pixels.", hint)
    shape = np.shape(value) if not is_tensor(value) else tuple(value.shape)
    array = array[..., None] if array.ndim == 3 and not _is_picture(array) else array
    if array.ndim != 4 or 0 in array.shape[1:] or not _has_channels_last(array.shape):
        text = " x ".join(map(str, shape))
        raise UserError(f"The shape of {name} is {text}.", _shape_hint(tuple(shape)))
    return array


def _arrays_of(pictures: Sequence[Image.Image]) -> list[NDArray[Any]]:
    """Pillow images as arrays: gray values if all are gray, else colours on white; values of over 8 bits."""
    if any(has_values(picture) for picture in pictures):
        return [np.asarray(picture) for picture in pictures]
    spec = DecodeSpec(1, 1, "crop", (255, 255, 255), keep_alpha=False)
    ready = [to_rgb(picture, spec) for picture in pictures]
    mode = "L" if all(picture.mode == "L" for picture in ready) else "RGB"
    return [np.asarray(picture.convert(mode)) for picture in ready]


def _objects(array: NDArray[Any]) -> str:
    return "Python objects" if array.dtype.kind == "O" else "texts"


def _differ(name: str) -> UserError:
    return UserError(
        f"The images of {name} differ in shape.",
        "Give arrays of one size, or a folder of files; images with labels as a tuple (images, labels).",
    )


def _is_picture(array: NDArray[Any]) -> bool:
    """Whether [H, W, C] is one picture in colour rather than gray images of 3 or 4 columns."""
    return array.shape[2] in (3, 4) and min(array.shape[:2]) > 4


def _has_channels_last(shape: tuple[int, ...]) -> bool:
    if shape[3] in COLOURS:
        return True
    return shape[1] not in COLOURS and shape[3] <= min(MAX_CHANNELS, *shape[1:3])


def _shape_hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and shape[1] in COLOURS and shape[3] not in COLOURS:
        return "It looks like [N, C, H, W]; give [N, H, W, C]: images.transpose(0, 2, 3, 1)."
    if len(shape) == 3 and shape[2] in (3, 4):
        return "It looks like one picture [H, W, C]; give several, [N, H, W, C]: one alone is images[None]."
    if len(shape) == 4 and shape[2] in COLOURS:
        return "It looks like [H, W, C, N]; give [N, H, W, C]: images.transpose(3, 0, 1, 2)."
    if len(shape) == 2:
        return (
            "Rows of pixels need the size of the images: images.reshape(-1, height, width). "
            "One picture alone is images[None]."
        )
    return "Images must be [N, H, W] or [N, H, W, C], with 1, 3 or 4 channels or a few bands."


def check_pixels(images: NDArray[Any], name: str) -> None:
    """Check that values are uint8, bool, integers from 0 to 255, or floats in [0, 1]."""
    if images.dtype in (np.uint8, np.bool_) or not images.size:
        return
    if images.dtype.kind not in "fiu":
        hint = "Use uint8 (0 to 255), bool, or floats from 0 to 1."
        raise UserError(f"The dtype of {name} is {images.dtype}.", hint)
    low, high = float(images.min()), float(images.max())  # NaN if any value is NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"There are NaN or infinite values in {name}.", "Remove those images.")
    if images.dtype.kind in "iu":
        if low >= 0 and high <= 255:
            return
        meant = "levels from 0 to 255"
    elif low >= -ROUNDING and high <= 1 + ROUNDING:
        return
    else:
        meant = "0 to 1"
    text = f"The values of {name} range from {low:.7g} to {high:.7g} instead of {meant}."
    raise UserError(text, _values_hint(low, high))


def _values_hint(low: float, high: float) -> str:
    """The line that brings values between `low` and `high` to the range from 0 to 1."""
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return "Clip them: images.clip(0, 1)."
    if low < 0:
        if low >= -1 - OVERSHOOT and high <= 1 + OVERSHOOT:
            return "Undo the normalization: (images + 1) / 2."
        means = "of ImageNet images * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]"
        return (
            f"Undo the normalization, images * std + mean, {means}; or use images from before it. "
            f"For other units: {setting('range', f'{low:.6g}:{high:.6g}')}."
        )
    top = f"{high:g}" if high <= 100 else f"{2 ** max(8, int(np.ceil(high)).bit_length()) - 1}"
    return (
        f"Divide by {top}, the highest possible value: images / {top}; or set {setting('range', f'0:{top}')}."
    )


def as_uint8(images: NDArray[Any], limits: Limits = None) -> Pixels:
    """Convert images that `check_pixels` accepts, or with `limits` any numbers, to uint8."""
    if limits is not None:
        return np.stack([to_levels(Values(image), limits) for image in images])
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind in "iu":
        return images.astype(np.uint8)
    levels: Pixels = np.rint(images.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)
    return levels


def slices(count: int, size: int = 1024) -> Iterator[slice]:
    """Divide the range 0 to `count` into slices of at most `size`."""
    return (slice(at, min(at + size, count)) for at in range(0, count, size))


def is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported torch
    return torch is not None and isinstance(value, torch.Tensor)
