"""Checks of output paths: new files and folders, never inside the user's images."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vaekit.config.overrides import alternatives
from vaekit.errors import UserError, setting
from vaekit.runs.folder import Run
from vaekit.runs.metadata import read_metadata
from vaekit.utils.files import atomic_folder, in_hub_cache, require_outside


def first_free(parent: Path, name: str, *suffixes: str) -> Path:
    """The first of parent/name-1, parent/name-2, ... that exists with none of `suffixes`, with the first."""
    number = 1
    while any((parent / f"{name}-{number}{suffix}").exists() for suffix in suffixes or ("",)):
        number += 1
    return parent / f"{name}-{number}{suffixes[0] if suffixes else ''}"


def new_file(
    run: Run | None,
    out: str | Path,
    suffixes: Sequence[str],
    data: object = None,
    *,
    also: Sequence[str] = (),
) -> Path:
    """Check the path `out` of a file to write: new, with one of `suffixes`, outside the user's images.

    These are `data` and the training images of `run`. `also` has the endings of further files next to it,
    which must be new too: "_maps.npz" is NAME_maps.npz.
    """
    path, hint = Path(out).expanduser(), f"Choose another {setting('out')}."
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{out}: the file name must end in {alternatives(suffixes)}.", option="out")
    for source in (data, read_metadata(run).source if run else None):
        require_outside(path, source)
    _require_not_cached(path)
    for file in (path, *(path.with_name(f"{path.stem}{ending}") for ending in also)):
        if file.exists():
            raise UserError(f"{file} already exists.", hint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error.strerror}).", hint) from None
    return path


def new_folder(run: Run, out: str | Path) -> Path:
    """Create a folder to fill, or take an empty one, outside the training images of the run."""
    path, hint = Path(out).expanduser(), f"Choose another {setting('out')}."
    require_outside(path, read_metadata(run).source)
    _require_not_cached(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} already exists.", hint)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to {path} ({error.strerror}).", hint) from None
    return path


@contextmanager
def filled_folder(run: Run, out: str | Path) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `out` when the block succeeds; `out` is checked first, as by
    `new_folder`."""
    existed = Path(out).expanduser().exists()
    path = new_folder(run, out)
    try:
        with atomic_folder(path) as temporary:
            yield temporary
            path.rmdir()  # an error if it has been filled meanwhile
    except BaseException:
        if not existed:
            with suppress(OSError):
                path.rmdir()
        raise


def copy_run(run: Run, target: Path) -> None:
    """Copy configuration, weights, prior and history of a run to a new folder."""
    if target.exists():
        raise UserError(f"{target} already exists.", "Choose a new folder.")
    require_outside(target, read_metadata(run).source)
    with atomic_folder(target) as temporary:
        for file in (run.config, run.dataset, run.weights, run.latent_prior, run.metrics, run.loss_graph):
            if file.exists():
                shutil.copyfile(file, temporary / file.name)


def require_writable(run: Run) -> None:
    """Raise UserError if a run is read-only, before a long computation whose result goes there."""
    if in_hub_cache(run.folder) or not os.access(run.folder, os.W_OK):
        raise UserError(f"{run.folder} is read-only.", "Copy the run to a folder that you can write to.")


def _require_not_cached(path: Path) -> None:
    """Raise a UserError for a file or folder in the Hub's cache: the default for a model from there."""
    if in_hub_cache(path):
        message = f"{path} is in the cache of the Hugging Face Hub, which is only read."
        raise UserError(message, f"Choose where to write with {setting('out')}.")
