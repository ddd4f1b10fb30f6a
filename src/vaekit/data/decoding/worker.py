"""A process that decodes images: `python -m vaekit.data.decoding.worker`, started and fed by `pool.py`.

It reads lines of JSON and answers each with one line. The first is the job; every other is a list of [row, path]. It
ends when its input does, so it never outlives the process that started it; and it needs neither torch nor NumPy to
start, nor anything of the user's script.
"""

import errno
import hashlib
import json
import os
import stat
import sys
import warnings
from io import BufferedReader, FileIO
from pathlib import Path

from PIL import Image

from vaekit.data.decoding.decode import ResizeSpec, UnusableError, decode, probe, to_bytes

Answer = str | list[int]


def open_regular(path: str) -> BufferedReader:
    """Open a regular file to read; anything else, also what took its place since it was listed, is refused."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise UnusableError("a folder" if stat.S_ISDIR(mode) else "not a regular file")
    return os.fdopen(handle, "rb")


def short_digest(sha256: bytes) -> int:
    """The 64 bits of a content's hash by which copies are found and splits are chosen."""
    return int.from_bytes(sha256[:8], "big")


def read_image(path: str, target: ResizeSpec) -> tuple[Image.Image, tuple[int, int], int]:
    """The decoded image of a file, its original (width, height), and the digest of the file's bytes.

    Raises:
        UnusableError: with the reason in plain words.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise UnusableError("empty")
            content = short_digest(hashlib.file_digest(file, "sha256").digest())
            file.seek(0)
            image, size = decode(file, target)
    except FileNotFoundError:
        raise UnusableError("not there") from None
    except PermissionError:
        raise UnusableError("not readable (no permission)") from None
    except OSError as error:
        raise UnusableError(f"not readable ({error.strerror or error})") from None
    return image, size, content


def _probe(path: str) -> Answer:
    try:
        with open_regular(path) as file:
            size = probe(file)
            return [] if size is None else [*size]
    except (OSError, UnusableError):
        return []


def _decode(path: str, target: ResizeSpec, row: int, channels: int, out: FileIO) -> Answer:
    """Write the image as row `row` of `out`; answer [width, height, is gray, has alpha, digest], or why not."""
    try:
        image, size, content = read_image(path, target)
        data = to_bytes(image, channels)
    except UnusableError as error:
        return str(error)
    out.seek(row * len(data))
    if out.write(data) != len(data):
        raise OSError(errno.ENOSPC, "the disk is full")
    return [*size, image.mode == "L", image.mode == "RGBA", content]


def main() -> None:
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library may print is no answer
    job = json.loads(sys.stdin.readline())
    root, target, channels = Path(job["root"]), job["target"], job["channels"]
    spec = ResizeSpec(target[0], target[1], target[2], tuple(target[3]), target[4]) if target else None
    try:
        with Path(job["out"]).open("r+b", buffering=0) as out:
            for line in sys.stdin:
                tasks = [(row, str(root / path)) for row, path in json.loads(line)]
                results = [_decode(path, spec, row, channels, out) if spec else _probe(path) for row, path in tasks]
                print(json.dumps(results), file=answers, flush=True)
    except BrokenPipeError:  # the parent is gone
        os._exit(0)


if __name__ == "__main__":
    main()
