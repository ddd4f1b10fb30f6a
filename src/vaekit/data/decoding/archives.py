"""Images in .zip and .tar files, read in place: nothing is unpacked under a name from the archive."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from vaekit.data.decoding.files import UnusableError
from vaekit.errors import UserError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
OTHER_ARCHIVES = (".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")
"""Archives that are not read."""
MAX_MEMBER = 1 << 30
"""Bytes of a file in an archive, at most."""
MAX_RATIO = 100
"""Size of a compressed .tar file over that of its compressed form, at most."""
OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""First bytes of compressed files, and what opens them."""


class Archive:
    """The files of a .zip or of an uncompressed .tar file; a context that closes it."""

    def __init__(self, path: str | Path) -> None:
        self._zip: zipfile.ZipFile | None = None
        self._tar: tarfile.TarFile | None = None
        self._names: dict[str, str] = {}
        """Of a .zip file, the name of each file by its path; some programs of Windows separate by "\\"."""
        if zipfile.is_zipfile(path):
            self._zip = zipfile.ZipFile(path)
            names = self._zip.namelist()
            self._names = {name.replace("\\", "/"): name for name in names if "\\" in name}
        else:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115  closed with the process

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        for archive in (self._zip, self._tar):
            if archive is not None:
                archive.close()

    def members(self) -> Iterator[tuple[str, str]]:
        """Iterate over (path, reason) of the files; the reason why one cannot be read is "" if it can."""
        if self._zip is not None:
            for entry in self._zip.infolist():
                if not entry.is_dir():
                    encrypted = "encrypted" if entry.flag_bits & 1 else ""
                    path = entry.filename.replace("\\", "/")
                    yield path, encrypted or _reason(path, entry.file_size)
        elif self._tar is not None:
            for member in self._tar:
                path = member.name.removeprefix("./")
                if member.isfile():
                    yield path, _reason(path, member.size)
                elif not member.isdir():
                    yield path, "a link or device in an archive"

    def open(self, path: str) -> BinaryIO:
        """The contents of a file."""
        try:
            if self._zip is not None:
                return _read(self._zip.open(self._names.get(path, path)))
            file = None
            if self._tar is not None:
                file = self._tar.extractfile(_member(self._tar, path))
            if file is None:
                raise UnusableError("not a regular file")
            return _read(file)
        except KeyError:
            raise UnusableError("not found") from None
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
            raise UnusableError(f"damaged ({str(error)[:100]})") from None


def _member(archive: tarfile.TarFile, path: str) -> tarfile.TarInfo:
    try:
        return archive.getmember(path)
    except KeyError:  # as `tar c .` names it
        return archive.getmember(f"./{path}")


def open_archive(path: Path, folder: Path) -> tuple[Archive, Path]:
    """Open an archive, and return the file that it is read from: of a compressed .tar file a
    decompressed copy in `folder`.

    Raises:
        UserError: it is damaged, or too large.
    """
    try:
        if not zipfile.is_zipfile(path):
            path = _decompressed(path, folder)
        return Archive(path), path
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"'{path}' is damaged, or not an archive ({error}).", "Download it again.") from None


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def _decompressed(path: Path, folder: Path) -> Path:
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((opener for start, opener in OPENERS.items() if head.startswith(start)), None)
    if opener is None:
        return path
    free = shutil.disk_usage(folder).free
    limit = min(free // 2, MAX_RATIO * path.stat().st_size)
    unpacked = folder / "archive.tar"
    written = 0
    with opener(path, "rb") as packed, unpacked.open("wb") as out:
        while block := packed.read(1 << 20):
            written += len(block)
            if written > limit:
                message = f"'{path}' unpacks to more than {limit / 1e6:,.0f} MB, which is too large."
                raise UserError(message, "Unpack it, and give the folder.")
            out.write(block)
    return unpacked


def _reason(path: str, size: int) -> str:
    if path.startswith("/") or path[1:2] == ":" or ".." in PurePosixPath(path).parts:
        return "a path that leads out of the archive"
    return "over 1 GB" if size > MAX_MEMBER else ""


def _read(file: IO[bytes]) -> BytesIO:
    with file:
        data = file.read(MAX_MEMBER + 1)
    if len(data) > MAX_MEMBER:
        raise UnusableError("over 1 GB")
    return BytesIO(data)
