"""The local server of the page: JSON and raw pixels over HTTP."""

import asyncio
import base64
import binascii
import io
import json
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import numpy as np
import uvicorn
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from vaekit.errors import UserError
from vaekit.explorer.decoder import Decoder
from vaekit.explorer.explorer import MAX_PLACES, Explorer
from vaekit.explorer.places import Place, read_places
from vaekit.explorer.security import Guard, address, new_token
from vaekit.plots import grids

HOST = "127.0.0.1"
STATIC = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        (
            "main.js",
            "api.js",
            "pictures.js",
            "inspector.js",
            "map.js",
            "points.js",
            "wall.js",
            "sliders.js",
            "morph.js",
            "training.js",
        ),
        "text/javascript; charset=utf-8",
    ),
}
"""The files of the page, and their types."""
MAX_FRAMES = 240
FRAME_MILLISECONDS = 60
ANIMATIONS = {"gif": "image/gif", "webp": "image/webp", "strip": "image/png"}
Answer = Callable[[Request], Awaitable[Response]]


class Server:
    """Routes of the page for one run."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer, self.decoder = explorer, Decoder(explorer.pictures)

    def app(self) -> Starlette:
        """The routes, without the checks of `Guard`."""
        get: dict[str, Answer] = {
            "/": self.page,
            "/static/{name}": self.static,
            "/api/info": self.info,
            "/api/coordinates/{projection}": self.coordinates,
            "/api/column/{name}": self.column,
            "/api/image/{row:int}": self.image,
            "/api/tile/{projection}/{level:int}/{x:int}/{y:int}": self.tile,
            "/api/sliders": self.sliders,
            "/api/density": self.density,
            "/api/training": self.training,
            "/api/picture/{folder}/{name}": self.picture,
        }
        post: dict[str, Answer] = {
            "/api/tsne": self.tsne,
            "/api/density": self.start_density,
            "/api/pictures": self.pictures,
            "/api/originals": self.originals,
            "/api/recipe": self.recipe,
            "/api/nearest": self.nearest,
            "/api/path": self.path,
            "/api/direction": self.direction,
            "/api/upload": self.upload,
            "/api/animation": self.animation,
        }
        routes = [Route(path, _checked(answer), methods=["GET"]) for path, answer in get.items()]
        routes += [Route(path, _checked(answer), methods=["POST"]) for path, answer in post.items()]
        return Starlette(routes=routes)

    async def page(self, _: Request) -> Response:
        return _static("index.html")

    async def static(self, request: Request) -> Response:
        return _static(request.path_params["name"])

    async def info(self, _: Request) -> Response:
        return JSONResponse(self.explorer.info())

    async def coordinates(self, request: Request) -> Response:
        projection = request.path_params["projection"]
        if projection not in self.explorer.tiles:
            return PlainTextResponse("There is no such map.", 404)
        tiles = self.explorer.tiles[projection]
        return _binary(tiles.coordinates.astype("<f4"), {"X-Low": tiles.low.tolist(), "X-Edge": tiles.edge})

    async def column(self, request: Request) -> Response:
        column = self.explorer.columns.get(request.path_params["name"])
        return (
            PlainTextResponse("There is no such column.", 404) if column is None else _binary(column.values)
        )

    async def image(self, request: Request) -> Response:
        return JSONResponse(self.explorer.image(request.path_params["row"]))

    async def tile(self, request: Request) -> Response:
        where = request.path_params
        tiles = self.explorer.tiles.get(where["projection"])
        if tiles is None:
            return PlainTextResponse("There is no such map.", 404)
        rows = tiles.rows(where["level"], where["x"], where["y"])
        return _pixels(await asyncio.to_thread(tiles.thumbnails, rows), {"X-Rows": rows.tolist()})

    async def sliders(self, _: Request) -> Response:
        return JSONResponse(self.explorer.sliders())

    async def density(self, _: Request) -> Response:
        return JSONResponse(self.explorer.density)

    async def start_density(self, _: Request) -> Response:
        self.explorer.start_density()
        return JSONResponse(self.explorer.density_job.status)

    async def tsne(self, _: Request) -> Response:
        self.explorer.start_tsne()
        return JSONResponse(self.explorer.tsne.status)

    async def pictures(self, request: Request) -> Response:
        """The pictures of places as pixels; status 204 if a later request of the stream came before."""
        given = await _json(request)
        stream = str(given.get("stream", ""))[:40]
        pictures = await self.decoder.decode(stream, read_places(given.get("places"), MAX_PLACES))
        return Response(status_code=204) if pictures is None else _pixels(pictures)

    async def originals(self, request: Request) -> Response:
        rows = (await _json(request)).get("rows")
        if (
            not isinstance(rows, list)
            or not 0 < len(rows) <= MAX_PLACES
            or not all(isinstance(row, int) for row in rows)
        ):
            raise UserError(f"A request needs a list of 1 to {MAX_PLACES} numbers of images.")
        return _pixels(await asyncio.to_thread(self.explorer.originals, rows))

    async def recipe(self, request: Request) -> Response:
        place = await _place(request)
        return JSONResponse({"text": await asyncio.to_thread(self.explorer.recipe, place)})

    async def nearest(self, request: Request) -> Response:
        place = await _place(request)
        return JSONResponse(await asyncio.to_thread(self.explorer.nearest_images, place))

    async def path(self, request: Request) -> Response:
        """Where places lie on a map, and which are outside of the data."""
        given = await _json(request)
        places = read_places(given.get("places"), MAX_PLACES)
        projection = "tsne" if given.get("projection") == "tsne" else "pca"
        at = await asyncio.to_thread(self.explorer.coordinates_of, places, projection)
        outside = await asyncio.to_thread(self.explorer.outside, places)
        return JSONResponse({"at": at, "outside": outside})

    async def direction(self, request: Request) -> Response:
        given, count = await _json(request), len(self.explorer.files)
        a, b = (_mask(given.get(group), count) for group in ("a", "b"))
        return JSONResponse(await asyncio.to_thread(self.explorer.direction, a, b))

    async def upload(self, request: Request) -> Response:
        name = request.query_params.get("name", "picture")[:100]
        contents = await request.body()
        return JSONResponse(await asyncio.to_thread(self.explorer.upload, name, contents))

    async def animation(self, request: Request) -> Response:
        """The pictures of places as one file."""
        given = await _json(request)
        places, kind = read_places(given.get("places"), MAX_FRAMES), given.get("format")
        if kind not in ANIMATIONS:
            raise UserError(f"The format must be one of {', '.join(ANIMATIONS)}.")
        pictures = await asyncio.to_thread(self.explorer.pictures, places)
        contents = await asyncio.to_thread(_animation, pictures, kind)
        return Response(contents, media_type=ANIMATIONS[kind])

    async def training(self, _: Request) -> Response:
        return JSONResponse(_finite(self.explorer.training()))

    async def picture(self, request: Request) -> Response:
        """A picture of the run: one of those that `training` lists."""
        name = f"{request.path_params['folder']}/{request.path_params['name']}"
        if name not in self.explorer.picture_names():
            return PlainTextResponse("There is no such picture.", 404)
        contents = await asyncio.to_thread((self.explorer.model.run.folder / name).read_bytes)
        return Response(contents, media_type="image/png")


def serve(explorer: Explorer, port: int, opened: Callable[[str], object]) -> None:
    """Answer the page until Ctrl-C.

    Args:
        explorer: the run.
        port: where to listen on 127.0.0.1; 0 for a free one.
        opened: called with the address of the page once the server listens.

    Raises:
        UserError: the port is in use.
    """
    listener = listen(port)
    port = listener.getsockname()[1]
    token = new_token()
    app = Guard(Server(explorer).app(), port, token)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, lifespan="off", ws="none",
        proxy_headers=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    explorer.start()
    opened(address(port, token))
    uvicorn.Server(config).run([listener])


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1. Raises a UserError if the port is in use."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        message = f"Cannot listen on port {port} ({error.strerror})."
        raise UserError(message, "Choose another one, or 0 for a free one.", "port") from None
    return listener


def _checked(answer: Answer) -> Answer:
    """`answer`, with the text of a UserError as an answer of status 400."""

    async def checked(request: Request) -> Response:
        try:
            return await answer(request)
        except UserError as error:
            return PlainTextResponse(str(error), 400)

    return checked


def _static(name: str) -> Response:
    if name not in STATIC:
        return PlainTextResponse("There is no such file.", 404)
    contents = (files("vaekit.explorer") / "static" / name).read_bytes()
    return Response(contents, media_type=STATIC[name])


async def _json(request: Request) -> dict[str, Any]:
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise UserError("The request is not a JSON object.")
    return given


async def _place(request: Request) -> Place:
    return read_places([(await _json(request)).get("place")], 1)[0]


def _mask(given: Any, count: int) -> NDArray[np.bool_]:
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


def _binary(array: NDArray[Any], headers: dict[str, Any] | None = None) -> Response:
    given = {name: json.dumps(value) for name, value in (headers or {}).items()}
    return Response(array.tobytes(), media_type="application/octet-stream", headers=given)


def _pixels(images: UInt8[np.ndarray, "N H W C"], headers: dict[str, Any] | None = None) -> Response:
    """Images as RGBA bytes one after the other, and their shape in a header."""
    count, height, width, channels = images.shape
    rgba = np.full((count, height, width, 4), 255, np.uint8)
    if channels in (1, 2):
        rgba[..., :3] = images[..., :1]
    else:
        rgba[..., : min(channels, 4) if channels == 4 else 3] = images[..., : 4 if channels == 4 else 3]
    return _binary(rgba, {"X-Shape": [count, height, width], **(headers or {})})


def _animation(images: UInt8[np.ndarray, "N H W C"], kind: str) -> bytes:
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


def _finite(value: Any) -> Any:
    """JSON has no NaN: None in its place."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
