"""The local server of the page: JSON and raw pixels over HTTP."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from vaekit.errors import UserError
from vaekit.explorer.decoder import Decoder
from vaekit.explorer.explorer import Explorer
from vaekit.explorer.messages import animation_file, binary, finite, json_of, mask_of, pixels, place_of
from vaekit.explorer.places import read_places
from vaekit.explorer.security import BodyTooLarge, Guard, address, new_token, too_large

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
            "colors.js",
            "inspector.js",
            "thumbnails.js",
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
MAX_PLACES = 256
"""Places in a request, at most: pictures, or frames of an animation."""
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
        handlers: dict[Any, Any] = {
            BodyTooLarge: lambda *_: too_large(),
            ClientDisconnect: lambda *_: Response(status_code=400),  # which nobody receives
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    async def page(self, _: Request) -> Response:
        return _static("index.html")

    async def static(self, request: Request) -> Response:
        return _static(request.path_params["name"])

    async def info(self, _: Request) -> Response:
        return JSONResponse(self.explorer.info())

    async def coordinates(self, request: Request) -> Response:
        projection = request.path_params["projection"]
        if projection not in self.explorer.map.tiles:
            return PlainTextResponse("There is no such map.", 404)
        tiles = self.explorer.map.tiles[projection]
        return binary(tiles.coordinates.astype("<f4"), {"X-Low": tiles.low.tolist(), "X-Edge": tiles.edge})

    async def column(self, request: Request) -> Response:
        column = self.explorer.map.columns.get(request.path_params["name"])
        return PlainTextResponse("There is no such column.", 404) if column is None else binary(column.values)

    async def image(self, request: Request) -> Response:
        return JSONResponse(self.explorer.map.facts(request.path_params["row"]))

    async def tile(self, request: Request) -> Response:
        where = request.path_params
        tiles = self.explorer.map.tiles.get(where["projection"])
        if tiles is None:
            return PlainTextResponse("There is no such map.", 404)
        rows = tiles.rows(where["level"], where["x"], where["y"])
        return pixels(await asyncio.to_thread(tiles.thumbnails, rows), {"X-Rows": rows.tolist()})

    async def sliders(self, _: Request) -> Response:
        return JSONResponse(self.explorer.sliders())

    async def density(self, _: Request) -> Response:
        return JSONResponse(self.explorer.map.density)

    async def start_density(self, _: Request) -> Response:
        self.explorer.map.start_density()
        return JSONResponse(self.explorer.map.sampling.status)

    async def tsne(self, _: Request) -> Response:
        self.explorer.map.start_tsne()
        return JSONResponse(self.explorer.map.tsne.status)

    async def pictures(self, request: Request) -> Response:
        """The pictures of places as pixels; status 204 if a later request of the stream came before."""
        given = await json_of(request)
        stream = str(given.get("stream", ""))[:40]
        pictures = await self.decoder.decode(stream, read_places(given.get("places"), MAX_PLACES))
        return Response(status_code=204) if pictures is None else pixels(pictures)

    async def originals(self, request: Request) -> Response:
        rows = (await json_of(request)).get("rows")
        if (
            not isinstance(rows, list)
            or not 0 < len(rows) <= MAX_PLACES
            or not all(isinstance(row, int) for row in rows)
        ):
            raise UserError(f"A request needs a list of 1 to {MAX_PLACES} numbers of images.")
        return pixels(await asyncio.to_thread(self.explorer.map.originals, rows))

    async def recipe(self, request: Request) -> Response:
        place = await place_of(request)
        return JSONResponse({"text": await asyncio.to_thread(self.explorer.recipe, place)})

    async def nearest(self, request: Request) -> Response:
        place = await place_of(request)
        return JSONResponse(await asyncio.to_thread(self.explorer.nearest, place))

    async def path(self, request: Request) -> Response:
        """Where places lie on a map, and which are away from all images."""
        given = await json_of(request)
        places = read_places(given.get("places"), MAX_PLACES)
        projection = "tsne" if given.get("projection") == "tsne" else "pca"
        return JSONResponse(await asyncio.to_thread(self.explorer.path, places, projection))

    async def direction(self, request: Request) -> Response:
        given, count = await json_of(request), len(self.explorer.map.files)
        a, b = (mask_of(given.get(group), count) for group in ("a", "b"))
        return JSONResponse(await asyncio.to_thread(self.explorer.direction, a, b))

    async def upload(self, request: Request) -> Response:
        name = request.query_params.get("name", "picture")[:100]
        contents = await request.body()
        return JSONResponse(await asyncio.to_thread(self.explorer.upload, name, contents))

    async def animation(self, request: Request) -> Response:
        """The pictures of places as one file."""
        given = await json_of(request)
        places, kind = read_places(given.get("places"), MAX_PLACES), given.get("format")
        if kind not in ANIMATIONS:
            raise UserError(f"The format must be one of {', '.join(ANIMATIONS)}.")
        pictures = await asyncio.to_thread(self.explorer.pictures, places)
        contents = await asyncio.to_thread(animation_file, pictures, kind)
        return Response(contents, media_type=ANIMATIONS[kind])

    async def training(self, _: Request) -> Response:
        return JSONResponse(finite(self.explorer.training()))

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
    with suppress(KeyboardInterrupt):  # which the server raises once more after it has stopped
        uvicorn.Server(config).run([listener])


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1. Raises a UserError if the port is in use."""
    # asyncio switches off Nagle's algorithm, which costs 40 ms an answer, where the protocol is named only
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
