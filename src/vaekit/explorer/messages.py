"""What requests and answers hold: JSON, places, selections, raw pixels, animations."""

import base64
import binascii
import io
import json
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from vaekit.errors import UserError
from vaekit.explorer.places import Place, read_places
from vaekit.plots import grids

FRAME_MILLISECONDS = 60
"""How long an animation shows a frame."""


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request."""
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise UserError("The request is not a JSON object.")
    return given


async def place_of(request: Request) -> Place:
    """The one place of a request."""
    return read_places([(await json_of(request)).get("place")], 1)[0]


def mask_of(given: Any, count: int) -> NDArray[np.bool_]:
    """A selection of `count` images from its bits in base64, eight to a byte, the lowest first."""
    try:
        bits = np.unpackbits(
            np.frombuffer(base64.b64decode(given, validate=True), np.uint8), bitorder="little"
        )
    except (TypeError, ValueError, binascii.Error):
        bits = np.zeros(0, np.uint8)
    if not count <= len(bits) < count + 8:
        raise UserError(f"A selection needs a bit for each of the {count:,} images.")
    return bits[:count].astype(bool)


def binary(array: NDArray[Any], headers: dict[str, Any] | None = None) -> Response:
    """The bytes of an array; headers are JSON."""
    given = {name: json.dumps(value) for name, value in (headers or {}).items()}
    return Response(array.tobytes(), media_type="application/octet-stream", headers=given)


def pixels(images: UInt8[np.ndarray, "N H W C"], headers: dict[str, Any] | None = None) -> Response:
    """Images as RGBA bytes one after the other, and their shape in a header."""
    count, height, width, channels = images.shape
    rgba = np.full((count, height, width, 4), 255, np.uint8)
    shown = 1 if channels in (1, 2) else 4 if channels == 4 else 3  # as in `grids.picture`
    rgba[..., : max(3, shown)] = images[..., :shown]
    return binary(rgba, {"X-Shape": [count, height, width], **(headers or {})})


def animation_file(images: UInt8[np.ndarray, "N H W C"], kind: str) -> bytes:
    """Images one after the other, as "gif" or "webp", or side by side, as "strip" (PNG)."""
    frames = [grids.picture(image) for image in images]
    if kind == "strip":
        return grids.png(grids.grid(images, len(images)))
    zoom = grids.zoom(*images.shape[1:3])
    large = [
        frame.resize((frame.width * zoom, frame.height * zoom), Image.Resampling.NEAREST) for frame in frames
    ]
    file = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    large[0].save(
        file, kind, save_all=True, append_images=large[1:], duration=FRAME_MILLISECONDS, loop=0, **options
    )
    return file.getvalue()


def finite(value: Any) -> Any:
    """JSON has no NaN: None in its place."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
