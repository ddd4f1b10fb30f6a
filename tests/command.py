"""The real command line, in a process of its own."""

import atexit
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaekit.errors import UserError

NEW_PROCESS = (sys.executable, "-m", "vaekit")
MLP: dict[str, Any] = {
    "encoder": "mlp",
    "decoder": "mlp",
    "latents": 3,
    "batch_size": 16,
    "latent_prior": "density",
}
"""Settings of the smallest model."""
BEFORE = dict(os.environ)
"""The environment before any test has changed it: that of the process to fork from."""

Process = subprocess.Popen[str]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@cache
def forked_command() -> tuple[str, ...]:
    """A command that is `vaekit`, without the seconds that importing takes: see warm.py."""
    script, folder = str(Path(__file__).parent / "warm.py"), tempfile.TemporaryDirectory()
    door = Path(folder.name) / "door"
    server = subprocess.Popen([sys.executable, script, "serve", str(door)], stdin=subprocess.PIPE, env=BEFORE)

    def end() -> None:
        server.communicate()
        folder.cleanup()

    atexit.register(end)
    wait_for(door.exists, server)
    assert door.exists(), "no process to fork from"
    return sys.executable, "-S", script, str(door)


def start(*arguments: object, cwd: Path | None = None, command: Sequence[str] = NEW_PROCESS) -> Process:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"COLUMNS": "200"}
    return subprocess.Popen([*command, *map(str, arguments)], text=True, cwd=cwd, env=env, **PIPES)


def finish(process: Process, status: int) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == status, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


def vaekit(*arguments: object, status: int = 0, cwd: Path | None = None) -> str:
    """Run a verb to its end; what it printed, standard error last."""
    return "".join(finish(start(*arguments, cwd=cwd, command=forked_command()), status))


def mistake(*arguments: object, cwd: Path | None = None, command: Sequence[str] | None = None) -> str:
    """The last line of standard error of a call that is a user's mistake."""
    _, err = finish(start(*arguments, cwd=cwd, command=command or forked_command()), 2)
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


def user_error(match: str | None = None) -> Any:
    """The context of a call that is a user's mistake, with a text that matches."""
    return pytest.raises(UserError, match=match)


def refused(match: str, call: Callable[..., object], *arguments: Any, **settings: Any) -> None:
    with user_error(match):
        call(*arguments, **settings)


def wait_for(condition: Callable[[], bool], process: Process | None = None, seconds: float = 240) -> None:
    """Until the condition holds, the process ends, or time is up."""
    end = time.monotonic() + seconds
    while not condition() and (process is None or process.poll() is None) and time.monotonic() < end:
        time.sleep(0.005)


def rings(count: int = 240, size: int = 12, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Blurred rings of random place and radius: images [N, H, W, C] with something to learn."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    cx, cy, r = random.uniform(0.3, 0.7, (3, count, 1, 1))
    ring = np.exp(-(((np.hypot(x - cx, y - cy) - 0.5 * r) / 0.12) ** 2))
    tint = random.uniform(0.3, 1, (count, 1, 1, channels)) if channels > 1 else 1
    return (255 * ring[..., None] * tint).astype(np.uint8)


def folder_state(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Bytes, time and mode of a folder and of everything below it."""
    state = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        state[str(path)] = content, status.st_mtime_ns, status.st_mode
    return state


def huge_png(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def save_images(folder: Path, images: Mapping[str, np.ndarray]) -> Path:
    """Write images [H, W, C] to files by their path in a folder."""
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / name)
    return folder
