"""A process that decodes images: `python -m vaekit.data.decoding.worker`, started and fed by `pool.py`.

It reads lines of JSON, first the job, then lists of [row, path], each of which is answered with one line. It
ends at the end of its input, so it never outlives its parent, and starts without torch or the user's script.
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
    """Open a regular file for reading; refuse anything else, even if it replaced a listed file."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise UnusableError("is a folder" if stat.S_ISDIR(mode) else "not a regular file")
    return os.fdopen(handle, "rb")


def short_digest(sha256: bytes) -> int:
    """The first 64 bits of a hash, by which duplicates are found and splits are assigned."""
    return int.from_bytes(sha256[:8], "big")


def read_image(path: str, target: ResizeSpec) -> tuple[Image.Image, tuple[int, int], int]:
    """Decode an image file, or raise UnusableError; also return its original size and its bytes' digest."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise UnusableError("empty")
            content = short_digest(hashlib.file_digest(file, "sha256").digest())
            file.seek(0)
            image, size = decode(file, target)
    except FileNotFoundError:
        raise UnusableError("not found") from None
    except PermissionError:
        raise UnusableError("not readable (no permission)") from None
    except OSError as error:
        raise UnusableError(f"not readable ({error.strerror or error})") from None
    return image, size, content


def _probe(path: str) -> Answer:
    try:
        with open_regular(path) as file:
            return [*(probe(file) or ())]
    except (OSError, UnusableError):
        return []


def _decode(path: str, row: int, target: ResizeSpec, channels: int, out: FileIO) -> Answer:
    """Write the image as a row of `out`; return [width, height, is gray, has alpha, digest] or a reason."""
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
    os.dup2(2, 1)  # a library may print to standard output
    root, out, target, channels = json.loads(sys.stdin.readline())
    spec = ResizeSpec(target[0], target[1], target[2], tuple(target[3]), target[4]) if target else None
    try:
        with Path(out).open("r+b", buffering=0) as file:
            for line in sys.stdin:
                tasks = [(str(Path(root, path)), row) for row, path in json.loads(line)]
                results = [
                    _decode(*task, spec, channels, file) if spec else _probe(task[0]) for task in tasks
                ]
                print(json.dumps(results), file=answers, flush=True)
    except BrokenPipeError:  # the parent has ended
        os._exit(0)


if __name__ == "__main__":
    main()
