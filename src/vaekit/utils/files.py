"""Files that are written whole or not at all: atomic writes, hashes, safe names."""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vaekit.errors import UserError, setting


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some network drives do not flush folders
            raise
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; it replaces `path` when the block succeeds.

    A reader sees the old file or the new one, never a part of either; if `durable`, also after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _set_mode(temporary, 0o666)
        if durable:
            fsync(temporary)
        temporary.replace(path)
        if durable:
            fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder in the parent of `path`; it becomes `path` when the block succeeds.

    If `path` exists by then, because another process was faster, the new folder is dropped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        for file in temporary.iterdir():
            fsync(file)
        fsync(temporary)
        _set_mode(temporary, 0o777)
        if not path.exists():
            temporary.rename(path)
            fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def lock(file: IO[str], wait: bool = False) -> bool:
    """Lock an open file for this process until it is closed; return whether the lock is held.

    On file systems without locks nothing is locked: processes may do the same work, of which one result is
    kept.
    """
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
    return True


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
    """A key that sorts numbers in a path by value: 2.png before 10.png."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", path))]


def is_inside(path: Path, source: object) -> bool:
    """Whether `path` lies inside `source`, if that is a folder of the user's images."""
    if not isinstance(source, (str, Path)) or not Path(source).expanduser().is_dir():
        return False
    return path.expanduser().resolve().is_relative_to(Path(source).expanduser().resolve())


def require_outside(out: Path, source: object, option: str = "out") -> None:
    """Raise a UserError if `out`, given by `option`, lies inside the folder `source` of the user's images."""
    if is_inside(out, source):
        raise UserError(f"{out} is inside the image folder {source}.", f"Choose another {setting(option)}.")


def in_hub_cache(path: Path) -> bool:
    """Whether `path` lies in a snapshot of the Hugging Face Hub's cache, which is only read."""
    snapshots = (folder for folder in path.absolute().parents if folder.name == "snapshots")
    return any(folder.parent.name.startswith("models--") for folder in snapshots)


def _set_mode(path: Path, mode: int) -> None:
    """Give `path` the permissions that new files have, where the file system has any."""
    with suppress(PermissionError, NotImplementedError):
        path.chmod(mode & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def printable(name: str) -> str:
    """A file name as text; bytes that are not UTF-8 are escaped, as in caf\\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
