"""A process that reads images: `python -m vaekit.data.decoding.worker`, started and fed by `pool.py`.

It reads lines of JSON, first the job, then lists of [row, path, page], each of which is answered with one
line. It ends at the end of its input, so it never outlives its parent, and starts without torch or the user's
script.
"""

import errno
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from vaekit.data.decoding.archives import Archive
from vaekit.data.decoding.decode import Decoded, channels_of, decode
from vaekit.data.decoding.files import UnusableError, open_regular
from vaekit.data.decoding.resize import DecodeSpec, to_bytes
from vaekit.data.decoding.survey import inspect_values, probe, visible_on

Answer = str | list[Any]
"""A list of results, or the reason why an image cannot be used."""
Open = Callable[[str], BinaryIO]


def short_digest(sha256: bytes) -> int:
    """The first 64 bits of a hash, by which duplicates are found and splits are assigned."""
    return int.from_bytes(sha256[:8], "big")


def read_image(opened: Open, path: str, target: DecodeSpec, page: int = 0) -> tuple[Decoded, int]:
    """Decode an image, or raise UnusableError; also return the digest of its file, and page."""
    with opened_file(opened, path) as file:
        if not file.read(1):
            raise UnusableError("empty")
        file.seek(0)
        hashing = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
        if page:
            hashing.update(page.to_bytes(8, "big"))
        return decode(file, target, page), short_digest(hashing.digest())


def opened_file(opened: Open, path: str) -> BinaryIO:
    """An open file; every failure is an UnusableError."""
    try:
        return opened(path)
    except FileNotFoundError:
        raise UnusableError("not found") from None
    except PermissionError:
        raise UnusableError("not readable (no permission)") from None
    except OSError as error:
        raise UnusableError(f"not readable ({error.strerror or error})") from None


def opener(root: str) -> Open:
    """What opens a file by its path in a folder or in an archive."""
    folder = Path(root)
    if folder.is_dir():
        return lambda path: open_regular(str(folder / path))
    return Archive(root).open


def _probe(opened: Open, path: str, page: int, job: dict[str, Any]) -> Answer:
    with opened_file(opened, path) as file:
        return [*(probe(file) or ())]


def _inspect(opened: Open, path: str, page: int, job: dict[str, Any]) -> Answer:
    with opened_file(opened, path) as file:
        return [*inspect_values(file, page, tuple(job["bands"]))]


def _visible(opened: Open, path: str, page: int, job: dict[str, Any]) -> Answer:
    with opened_file(opened, path) as file:
        return [*visible_on(file)]


TASKS = {"probe": _probe, "inspect": _inspect, "visible": _visible}


def _decode(
    opened: Open, task: tuple[int, str, int], target: DecodeSpec, channels: int, out: FileIO
) -> Answer:
    """Write the image as a row of `out`; return [width, height, channels, digest, remark] or a reason."""
    row, path, page = task
    try:
        decoded, content = read_image(opened, path, target, page)
    except OSError as error:
        raise UnusableError(f"not readable ({error.strerror or error})") from None
    count = channels_of(decoded.picture)
    if isinstance(decoded.picture, tuple) and count != channels:
        raise UnusableError(f"with {count} bands, unlike the others")
    if not isinstance(decoded.picture, tuple) and (
        channels not in (3, 4) or (channels == 4 and not target.keep_alpha)
    ):
        raise UnusableError(f"without the {channels} bands of the others")
    data = to_bytes(decoded.picture, channels)
    out.seek(row * len(data))
    if out.write(data) != len(data):
        raise OSError(errno.ENOSPC, "the disk is full")
    return [*decoded.size, count, content, decoded.remark]


def _run(
    job: dict[str, Any], opened: Open, target: DecodeSpec | None, out: FileIO, tasks: list[Any]
) -> list[Answer]:
    answers: list[Answer] = []
    for row, path, page in tasks:
        try:
            if target is not None:
                answers.append(_decode(opened, (row, path, page), target, job["channels"], out))
            else:
                answers.append(TASKS[job["task"]](opened, path, page, job))
        except UnusableError as error:
            answers.append(str(error))
        except OSError as error:
            if target is not None:  # the pixels cannot be written
                raise
            answers.append(f"not readable ({error.strerror or error})")
        except Exception as error:
            answers.append(f"damaged ({' '.join(str(error).split())[:100] or type(error).__name__})")
    return answers


def main() -> None:
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # a library may print to standard output
    job = json.loads(sys.stdin.readline())
    target = None
    if job["target"] is not None:
        width, height, fit, background, keep_alpha, *rest = job["target"]
        limits: list[Any] = [None if part is None else tuple(part) for part in rest]
        target = DecodeSpec(width, height, fit, tuple(background), keep_alpha, *limits)
    try:
        opened = opener(job["root"])
        with Path(job["out"]).open("r+b", buffering=0) as file:
            for line in sys.stdin:
                results = _run(job, opened, target, file, json.loads(line))
                print(json.dumps(results), file=answers, flush=True)
    except BrokenPipeError:  # the parent has ended
        os._exit(0)


if __name__ == "__main__":
    main()
