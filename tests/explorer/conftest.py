"""A small run of colour images in classes, and its explorer as a process of its own."""

import http.client
import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaekit
from command import NEW_PROCESS, rings, save_images, start, wait_for

HOSTILE = "<img src=x onerror=document.title='pwned'>"
"""A class and a file name that are HTML."""


def train_run(folder: Path, **settings: Any) -> vaekit.TrainedModel:
    images = rings(120, 16, channels=3)
    names = {f"{'round' if i % 2 else HOSTILE}/{i:03d}.png": image for i, image in enumerate(images)}
    names[f"round/{HOSTILE}.png"] = rings(1, 16, channels=3, seed=1)[0]
    data = save_images(folder / "photos", names)
    small = {
        "encoder": {"channels": 16},
        "decoder": {"channels": 16},
        "flip": False,
        "crop": 0,
        "batch_size": 16,
    }
    run = folder / "run"
    return vaekit.train(data, out=run, epochs=30, report=False, quiet=True, **(small | settings))


@dataclass
class Client:
    """Talks to an explorer as its page does."""

    port: int
    token: str
    cookie: str = ""

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = ({"Cookie": self.cookie} if self.cookie else {}) | (headers or {})
        connection.request(method, path, body, given)
        response = connection.getresponse()
        answer = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        connection.close()
        return answer

    def log_in(self) -> None:
        status, headers, _ = self.request("GET", f"/?token={self.token}")
        assert status == 303 and headers["location"] == "/"
        self.cookie = headers["set-cookie"].split(";")[0]

    def get(self, path: str) -> Any:
        status, _, body = self.request("GET", path)
        assert status == 200, body
        return json.loads(body)

    def post(self, path: str, given: Any) -> Any:
        status, _, body = self.request("POST", path, json.dumps(given))
        assert status == 200, body
        return json.loads(body)

    def refused(self, path: str, given: Any) -> str:
        status, _, body = self.request("POST", path, json.dumps(given))
        assert status == 400, (status, body)
        return body.decode()

    def pictures(self, *places: dict[str, Any]) -> np.ndarray:
        """RGB of the pictures of places."""
        status, headers, body = self.request("POST", "/api/pictures", json.dumps({"places": places}))
        assert status == 200, body
        return np.frombuffer(body, np.uint8).reshape(*json.loads(headers["x-shape"]), 4)[..., :3]

    def wait(self) -> None:
        wait_for(lambda: self.get("/api/info")["images"] > 0, seconds=120)


@contextmanager
def exploring(run: Path, *options: object) -> Iterator[Client]:
    """`vaekit explore` with its images encoded; Ctrl-C ends it after the block, however that went."""
    process = start("explore", run, "--no-browser", *options, command=NEW_PROCESS)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]+)", line)
        assert match, line
        client = Client(int(match[1]), match[2])
        client.log_in()
        client.wait()
        yield client
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> vaekit.TrainedModel:
    """A latent image, a fitted density by class, and hostile names."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(cache))
        return train_run(tmp_path_factory.mktemp("explorer"), latent_prior="density")


@pytest.fixture(scope="session")
def run(model: vaekit.TrainedModel) -> Path:
    return model.run.folder


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An explorer whose images are encoded."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        with exploring(run) as client:
            yield client


@pytest.fixture
def copy_of_run(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run", ignore=lambda *_: ["explorer"]))
