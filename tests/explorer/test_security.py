"""The server answers its page only. Requests are written to raw sockets."""

import json
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from command import folder_state, huge_png
from explorer.conftest import Client, exploring

BIG = 40 << 20
"""Bytes above the limit of a request."""


def talk(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """The whole answer to bytes that are sent as they are."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:  # the server has answered and closed
            pass
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except OSError:
            pass
    return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def head(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "Connection: close", "", ""]).encode()


def host(page: Client) -> str:
    return f"Host: 127.0.0.1:{page.port}"


def cookie(page: Client) -> str:
    return f"Cookie: {page.cookie}"


def test_the_page_is_answered(page: Client) -> None:
    answer = talk(page.port, head("/", host(page), cookie(page)))
    assert status(answer) == 200 and b"main.js" in answer
    same_origin = (f"Origin: http://127.0.0.1:{page.port}", "Sec-Fetch-Site: same-origin")
    assert status(talk(page.port, head("/api/info", host(page), cookie(page), *same_origin))) == 200


REFUSED: dict[str, Callable[[Client], bytes]] = {
    "another host": lambda page: head("/api/info", "Host: evil.example", cookie(page)),
    "another host with this port": lambda page: head(
        "/api/info", f"Host: evil.example:{page.port}", cookie(page)
    ),
    "another port": lambda page: head("/api/info", "Host: 127.0.0.1:1", cookie(page)),
    "two hosts": lambda page: head("/api/info", host(page), "Host: evil.example", cookie(page)),
    "no host": lambda page: head("/api/info", cookie(page)),
    "another origin": lambda page: head("/api/info", host(page), cookie(page), "Origin: http://evil.example"),
    "an origin of null": lambda page: head("/api/info", host(page), cookie(page), "Origin: null"),
    "another port as origin": lambda page: head(
        "/api/info", host(page), cookie(page), "Origin: http://127.0.0.1:1"
    ),
    "a page of another site": lambda page: head(
        "/api/info", host(page), cookie(page), "Sec-Fetch-Site: cross-site"
    ),
    "no cookie": lambda page: head("/api/info", host(page)),
    "no cookie for a file": lambda page: head("/static/main.js", host(page)),
    "a wrong cookie": lambda page: head("/api/info", host(page), f"{cookie(page)}x"),
    "a cookie that is none": lambda page: head("/api/info", host(page), "Cookie: ;=;;\x01=(" + "a" * 500),
    "a wrong token": lambda page: head("/?token=wrong", host(page)),
    "the token for another path": lambda page: head(f"/api/info?token={page.token}", host(page)),
}


@pytest.mark.parametrize("request_of", REFUSED.values(), ids=REFUSED)
def test_others_are_refused(request_of: Callable[[Client], bytes], page: Client) -> None:
    answer = talk(page.port, request_of(page))
    assert status(answer) in (400, 403, 421)
    assert b"latent_shape" not in answer and b"import" not in answer and b"set-cookie" not in answer.lower()


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(page: Client) -> None:
    answer = talk(page.port, head(f"/?token={page.token}", host(page))).lower()
    assert status(answer) == 303 and b"httponly" in answer and b"samesite=strict" in answer
    assert b"location: /\r\n" in answer


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/info", "/nothing"])
def test_every_answer_has_a_strict_content_policy(path: str, page: Client) -> None:
    _, headers, _ = page.request("GET", path)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert "server" not in headers


PATHS = [
    "/static/../server.py",
    "/static/..%2fserver.py",
    "/static/%2e%2e/server.py",
    "/static//etc/passwd",
    "/static/server.py",
    "/api/picture/samples/..%2f..%2fconfig.json",
    "/api/picture/checkpoints/config.json",
    "/api/picture/samples/missing.png",
    "/api/picture/samples/link.png",
    "/api/column/..%2f..%2fconfig.json",
    "/api/coordinates/..",
    "/config.json",
    "//etc/passwd",
    "/etc/passwd",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_is_served_that_is_not_listed(path: str, page: Client, run: Path) -> None:
    link = run / "samples" / "link.png"
    if not link.is_symlink():
        link.symlink_to(run / "config.json")
    answer = talk(page.port, head(path, host(page), cookie(page)))
    assert status(answer) == 404
    assert b"root:" not in answer and b"import" not in answer and b"seed" not in answer


def test_listed_pictures_are_served(page: Client, run: Path) -> None:
    names = page.get("/api/training")["pictures"]
    assert "samples/epoch_0001.png" in names and not any("link" in name for name in names)
    _, headers, body = page.request("GET", "/api/picture/samples/epoch_0001.png")
    assert headers["content-type"] == "image/png" and body == (run / "samples/epoch_0001.png").read_bytes()


def test_large_requests_are_refused(page: Client) -> None:
    announced = head("/api/upload", host(page), cookie(page), f"Content-Length: {BIG}", method="POST")
    assert status(talk(page.port, announced)) == 413
    wrong = head("/api/upload", host(page), cookie(page), "Content-Length: -5", method="POST")
    assert status(talk(page.port, wrong)) in (400, 413)
    chunked = head("/api/upload", host(page), cookie(page), "Transfer-Encoding: chunked", method="POST")
    chunk = f"{1 << 20:x}\r\n".encode() + bytes(1 << 20) + b"\r\n"
    assert status(talk(page.port, chunked, *[chunk] * (BIG >> 20), b"0\r\n\r\n")) == 413
    assert page.get("/api/info")["images"] == 121


def test_pictures_of_too_many_pixels_are_refused(page: Client) -> None:
    code, _, body = page.request("POST", "/api/upload?name=huge.png", huge_png(50_000, 50_000))
    assert code == 400 and b"huge.png" in body


MALFORMED = [
    b"not json",
    b"[1, 2]",
    b"null",
    b'{"places": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"places": [{"kind": "image", "row": 1e400}]}',
    json.dumps({"places": [{"kind": "image", "row": 0}] * 1000}).encode(),
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: body[:30].decode())
def test_malformed_requests_are_refused_in_a_sentence(body: bytes, page: Client) -> None:
    code, _, answer = page.request("POST", "/api/pictures", body)
    assert code == 400 and b"Traceback" not in answer and len(answer) < 300
    assert page.pictures({"kind": "image", "row": 0}).shape == (1, 16, 16, 3)


def test_too_many_requests_at_a_time_are_refused(page: Client) -> None:
    """Forty uploads that never end; the page is answered once they are gone."""
    begun = head("/api/upload", host(page), cookie(page), "Content-Length: 1000", method="POST")
    waiting = []
    for _ in range(40):
        connection = socket.create_connection(("127.0.0.1", page.port), timeout=20)
        connection.sendall(begun)
        waiting.append(connection)
    time.sleep(0.5)
    assert status(talk(page.port, head("/api/info", host(page), cookie(page)))) == 503
    for connection in waiting:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    time.sleep(0.5)
    assert page.get("/api/info")["images"] == 121


def test_it_listens_on_the_loopback_address_only(page: Client) -> None:
    local = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}:{page.port:04X}"
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("this system has no /proc/net/tcp")
    listening = [line.split()[1] for line in table.read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert [address for address in listening if address.endswith(f":{page.port:04X}")] == [local]


def test_nothing_is_written_outside_of_the_run(copy_of_run: Path, run: Path) -> None:
    photos = run.parent / "photos"
    before, images = folder_state(copy_of_run), folder_state(photos)
    with exploring(copy_of_run) as client:
        client.pictures({"kind": "new"})
        client.request("POST", "/api/upload?name=..%2F..%2Fx.png", next(photos.rglob("*.png")).read_bytes())
    after = folder_state(copy_of_run)
    new = {path for path in after if path not in before}
    assert new and all(Path(path).is_relative_to(copy_of_run / "explorer") for path in new)
    assert {p: s[0] for p, s in after.items() if p in before} == {p: s[0] for p, s in before.items()}
    assert folder_state(photos) == images
