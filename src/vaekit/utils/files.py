"""Files that are either whole or not there: atomic writes, hashes, safe names."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaekit.errors import UserError


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` when the block ends well.

    A reader sees the old file or the new one, never a part of either, also after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it becomes `path` when the block ends well.

    If `path` exists by then (another process was quicker) it stays and the new folder is dropped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        for file in temporary.iterdir():
            fsync(file)
        fsync(temporary)
        temporary.chmod(0o777 & ~_umask())
        if not path.exists():
            temporary.rename(path)
            fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(text: str) -> str:
    """`text` as a file or folder name: letters, digits, '.', '_' and '-' only, never hidden, never empty."""
    return re.sub(r"[^\w.-]+", "-", text).strip(".-")[:80] or "unnamed"


def natural_sort_key(path: str) -> list[str | int]:
    """A key to sort by: numbers in a path count as numbers, 2.png before 10.png."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", path))]


def require_outside(out: Path, source: object) -> None:
    """Refuse to write into a folder of the user's images.

    Raises:
        UserError: `out` lies inside the folder `source`.
    """
    if (
        isinstance(source, (str, Path))
        and (folder := Path(source).expanduser()).is_dir()
        and out.expanduser().resolve().is_relative_to(folder.resolve())
    ):
        raise UserError(f"{out} lies inside the images of {source}, which stay as they are: name another --out.")


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse before writing `needed` bytes below `folder` where the disk has no room for them."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{purpose} needs {needed / 1e6:,.0f} MB but only {free / 1e6:,.0f} MB are free on the disk of {folder}: "
            "free some space, or point XDG_CACHE_HOME or --out at another disk."
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def printable(name: str) -> str:
    """A name as text: bytes in it that are no UTF-8, which a file may have, are written out, as in caf\\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
