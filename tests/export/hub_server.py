"""A Hugging Face Hub on loopback: repositories in memory, with the requests of huggingface_hub for upload and
download."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"
"""The token of whoever may write."""


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with its revisions and their files; large files by their hash."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.large: dict[str, bytes] = {}
        self.downloaded: list[str] = []

    def add(self, name: str, files: dict[str, bytes], revision: str = "main") -> None:
        self.repositories.setdefault(name, {})[revision] = files


@contextmanager
def running_hub() -> Iterator[Hub]:
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def files(self, name: str, revision: str) -> dict[str, bytes] | None:
        """The files of a repository; answers itself where there are none."""
        revisions = self.server.repositories.get(name)
        if revisions is None:
            self.answer(404, X_Error_Code="RepoNotFound")
            return None
        revisions = {commit_of(files): files for files in revisions.values()} | revisions
        if revision not in revisions:
            self.answer(404, X_Error_Code="RevisionNotFound")
            return None
        return revisions[revision]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if (files := self.files(match[1], match[2] or "main")) is not None:
                siblings = [{"rfilename": file} for file in files]
                self.answer(200, {"id": match[1], "sha": commit_of(files), "siblings": siblings})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            if (files := self.files(match[1], match[2])) is not None:
                self.answer(
                    200,
                    [
                        {"type": "file", "path": file, "size": len(content), "oid": hash_of(content)}
                        for file, content in files.items()
                    ],
                )
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if (files := self.files(match[1], match[2])) is not None:
                content = files[match[3]]
                if self.command == "GET":
                    self.server.downloaded.append(match[3])
                self.answer(200, content, ETag=f'"{hash_of(content)}"', X_Repo_Commit=commit_of(files))
        else:
            self.answer(404)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        path, content = unquote(urlsplit(self.path).path), self.body()
        if path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401)
        elif path == "/api/repos/create":
            request = json.loads(content)
            name = f"{request['organization']}/{request['name']}"
            exists = name in self.server.repositories
            self.server.repositories.setdefault(name, {"main": {".gitattributes": b""}})
            self.answer(409 if exists else 200, {"url": f"{self.server.address}/{name}"})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if is_large(f["path"]) else "regular"}
                for f in json.loads(content)["files"]
            ]
            self.answer(200, {"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            upload = {"upload": {"href": f"{self.server.address}/lfs"}}
            objects = [{**o, "actions": upload} for o in json.loads(content)["objects"]]
            self.answer(200, {"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            files = dict(self.server.repositories[match[1]]["main"])
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
            self.server.add(match[1], files)
            commit = commit_of(files)
            url = f"{self.server.address}/{match[1]}/commit/{commit}"
            self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url})
        else:
            self.answer(404)

    def do_PUT(self) -> None:
        content = self.body()
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self.answer(200)


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".png"))


def hash_of(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def commit_of(files: dict[str, bytes]) -> str:
    return hash_of(json.dumps({name: hash_of(content) for name, content in sorted(files.items())}).encode())
