"""Opening of image files."""

import os
import stat
from io import BufferedReader

MAX_PIXELS = 100_000_000
"""Larger images are not decoded: a small file can expand to more than all memory."""


class UnusableError(Exception):
    """An image that cannot be used; the text is the reason, as a phrase that can follow "1 file skipped:"."""


def open_regular(path: str) -> BufferedReader:
    """Open a regular file for reading; refuse anything else, even if it replaced a listed file."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise UnusableError("is a folder" if stat.S_ISDIR(mode) else "not a regular file")
    return open(path, "rb", opener=lambda *_: handle)  # unlike that of `fdopen`, its name is the path
