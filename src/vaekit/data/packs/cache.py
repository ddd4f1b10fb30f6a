"""The folder of the packs, and the locks under which they are written."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from vaekit.errors import UserError
from vaekit.utils.files import lock


def cache_folder() -> Path:
    """XDG_CACHE_HOME/vaekit, or the system's usual cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if home.is_absolute():
        return home / "vaekit"
    import platformdirs

    return Path(platformdirs.user_cache_dir("vaekit", appauthor=False))


def packs_folder() -> Path:
    """The folder of the packs, created if it does not exist."""
    folder = cache_folder() / "packs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The cache folder '{folder}' cannot be created ({error.strerror})."
        raise UserError(message, "Set XDG_CACHE_HOME to a folder that you can write to.") from None
    return folder


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
