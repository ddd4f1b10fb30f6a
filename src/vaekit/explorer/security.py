"""Who may talk to the server: the page that it was opened with, on this machine."""

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 32 << 20
"""Bytes of a request, at most: a photograph."""
MAX_REQUESTS = 32
"""Requests that are answered at a time, at most."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class BodyTooLarge(Exception):
    """A request has more than MAX_BODY bytes; the application answers with `too_large`."""


class Guard:
    """Refuses requests of other hosts, origins and users, and large or many ones; sets security headers.

    A page of another site that runs in the same browser can send requests to 127.0.0.1, and by DNS rebinding
    even read the answers: hence the checks of Host and Origin. Other users of the machine can connect too:
    hence the token, which the first address has and a cookie keeps.

    Args:
        app: what answers.
        port: where the server listens.
        token: the secret of this launch.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self.app, self.token = app, token
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self.cookie = f"vaekit-{port}"
        self.open_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _with_headers(send))
        else:
            raise ValueError(f"connections of type {scope['type']} are not answered")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal := self._refusal(scope):
            await refusal(scope, receive, send)
            return
        self.open_requests += 1
        try:
            await self.app(scope, _limited(receive), send)
        finally:
            self.open_requests -= 1

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is not let through; None for others."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts, origins = headers.get("host", []), headers.get("origin", [])
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return PlainTextResponse("This server answers to 127.0.0.1 only.", 421)
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return PlainTextResponse("Requests from other sites are not answered.", 403)
        if any(site not in ("same-origin", "none") for site in headers.get("sec-fetch-site", [])):
            return PlainTextResponse("Requests from other sites are not answered.", 403)
        if given := parse_qs(scope["query_string"].decode("latin-1")).get("token"):
            if scope["method"] == "GET" and scope["path"] == "/" and self._is_token(given[0]):
                response = RedirectResponse("/", 303)
                response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
                return response
            return _unknown()
        if not self._is_token(_cookie(headers.get("cookie", []), self.cookie)):
            return _unknown()
        lengths = headers.get("content-length", ["0"])
        if not all(length.isdigit() and int(length) <= MAX_BODY for length in lengths):
            return too_large()
        if self.open_requests >= MAX_REQUESTS:
            return PlainTextResponse("Too many requests at a time.", 503, {"Retry-After": "1"})
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def new_token() -> str:
    """A secret for one launch."""
    return secrets.token_urlsafe(32)


def address(port: int, token: str) -> str:
    """The address that opens the page."""
    return f"http://127.0.0.1:{port}/?token={quote(token)}"


def _cookie(headers: list[str], name: str) -> str:
    try:
        cookies = SimpleCookie("; ".join(headers))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _unknown() -> Response:
    return PlainTextResponse("Open the address that `vaekit explore` has printed, with its token.", 403)


def too_large() -> Response:
    """The answer to a request of more than MAX_BODY bytes."""
    return PlainTextResponse(f"A request may have {MAX_BODY >> 20} MB at most.", 413)


def _limited(receive: Receive) -> Receive:
    """Receive no more than MAX_BODY bytes, whatever the headers say."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            raise BodyTooLarge
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            for name, value in HEADERS.items():
                if name.lower().encode() not in present:
                    message["headers"].append((name.lower().encode(), value.encode()))
        await send(message)

    return with_headers
