"""The folder of the packs, and the locks under which they are written."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from vaekit.errors import UserError
from vaekit.utils.files import in_hub_cache, is_inside, lock
from vaekit.utils.logging import log

Result = TypeVar("Result")
FALLBACK = ".vaekit-cache"
"""Name of the folder next to a run that is used where the cache folder cannot be."""
OTHER_FOLDER = "Free some space, or set XDG_CACHE_HOME to a folder on another disk that you can write to."


def cache_folder() -> Path:
    """XDG_CACHE_HOME/vaekit, or the system's usual cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if home.is_absolute():
        return home / "vaekit"
    import platformdirs

    return Path(platformdirs.user_cache_dir("vaekit", appauthor=False))


class UnusableFolder(UserError):
    """A folder to which no pack can be written.

    Args:
        folder: the folder.
        reason: the predicate of a sentence on it: "is read-only".
    """

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"The cache folder '{folder}' {reason}.", OTHER_FOLDER)
        self.folder, self.reason = folder, reason


def packs_folders(run: Path | None) -> tuple[Path, Path]:
    """The folders of packs, in the order in which they are tried: in the cache, and next to the folder of a
    run, or of runs in runs/ for None."""
    runs = Path("runs") if run is None or in_hub_cache(run) else run.resolve().parent
    return cache_folder() / "packs", runs / FALLBACK / "packs"


def in_usable_folder(folders: tuple[Path, Path], source: object, work: Callable[[Path], Result]) -> Result:
    """The result of `work` in the first of two folders, or if no pack can be written there, in the second one
    with a line that says so.

    Raises:
        UserError: neither can be used. The second one cannot if it is inside the folder `source` of images.
    """
    first, second = folders
    try:
        _make_writable(first)
        return work(first)
    except UnusableFolder as error:
        reason = error.reason
    try:
        if is_inside(second, source):
            raise UnusableFolder(second, "is inside the image folder")
        _make_writable(second)
        log.info(f"The cache folder '{first}' {reason}: images are cached in '{second}' instead.")
        return work(second)
    except UnusableFolder as error:
        text = f"'{first}' {reason}, and '{second}' {error.reason}"
        raise UserError(f"The images cannot be cached: {text}.", OTHER_FOLDER) from None


def _make_writable(folder: Path) -> None:
    """Create a folder of packs if it does not exist, and see whether files can be written to it."""
    verb = "created"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        verb = "written"
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        read_only = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        raise UnusableFolder(
            folder, "is read-only" if read_only else f"cannot be {verb} ({error.strerror})"
        ) from None


@contextmanager
def lock_pack(pack: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock under which `pack` is built, after waiting for it if `wait`; yield whether it is held."""
    with (pack.parent / f".{pack.name}.lock").open("w") as file:
        yield lock(file, wait)


def remove_leftovers(pack: Path) -> None:
    """Delete what interrupted builds have left behind. The caller holds the lock of `pack`."""
    for leftover in filter(Path.is_dir, pack.parent.glob(".*")):
        name = leftover.name.split(".")[1]
        with nullcontext(True) if name == pack.name else lock_pack(pack.parent / name, wait=False) as held:
            if held:
                shutil.rmtree(leftover, ignore_errors=True)


def clear_cache() -> int:
    """Delete all packs but those being built; return the bytes freed. Packs are rebuilt when needed."""
    folder = cache_folder() / "packs"
    freed = 0
    for pack in filter(Path.is_dir, folder.glob("*")):
        with lock_pack(folder / pack.name.removeprefix(".").split(".")[0], wait=False) as held:
            if held:
                freed += sum(file.stat().st_size for file in pack.iterdir())
                shutil.rmtree(pack, ignore_errors=True)
    return freed
