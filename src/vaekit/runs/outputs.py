"""Where results may be written: new files and folders, never among the user's images."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vaekit.errors import UserError, setting
from vaekit.runs.folder import Run
from vaekit.runs.metadata import read_metadata
from vaekit.utils.files import atomic_folder, require_outside


def first_free(parent: Path, name: str, *suffixes: str) -> Path:
    """The first of parent/name-1, parent/name-2, ... that does not exist.

    With suffixes it is a file with the first of them, whose number is free with all of them.
    """
    number = 1
    while any((parent / f"{name}-{number}{suffix}").exists() for suffix in suffixes or ("",)):
        number += 1
    return parent / f"{name}-{number}{suffixes[0] if suffixes else ''}"


def new_file(
    run: Run | None, out: str | Path, suffixes: Sequence[str], data: object = None, *, also: str = ""
) -> Path:
    """The path of a file that may be written: new, of a known kind, and not among the user's images.

    Args:
        run: the run that it is about, whose training images are left alone.
        out: where to write.
        suffixes: kinds of file that can be written there.
        data: images that are read for it; if they are a folder it is left alone.
        also: suffix of a second file that is written next to it.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(out).expanduser()
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{out}: the file name must end in {_either(suffixes)}.", option="out")
    for source in (data, read_metadata(run).source if run else None):
        require_outside(path, source)
    for file in (path, path.with_suffix(also)) if also else (path,):
        if file.exists():
            raise UserError(f"{file} already exists.", f"Choose another {setting('out')}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"Cannot write {path} ({error.strerror})."
        raise UserError(reason, f"Choose another {setting('out')}.") from None
    return path


def new_folder(run: Run, out: str | Path) -> Path:
    """The path of a folder that may be filled: new or empty, and not among the training images of the run.

    Raises:
        UserError: the folder cannot be used.
    """
    path = Path(out).expanduser()
    require_outside(path, read_metadata(run).source)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} already exists.", f"Choose another {setting('out')}.")
    return path


def copy_run(run: Run, target: Path) -> None:
    """Copy what a trained model consists of to a new folder: configuration, weights, prior and history.

    Raises:
        UserError: the folder exists.
    """
    if target.exists():
        raise UserError(f"{target} already exists.", "Choose a new folder.")
    with atomic_folder(new_folder(run, target)) as temporary:
        copy = Run(temporary)
        for source, destination in (
            (run.config, copy.config),
            (run.dataset, copy.dataset),
            (run.weights, copy.weights),
            (run.latent_prior, copy.latent_prior),
            (run.metrics, copy.metrics),
            (run.loss_graph, copy.loss_graph),
        ):
            if source.exists():
                shutil.copyfile(source, destination)


def require_writable(run: Run) -> None:
    """Refuse to begin what ends by writing into a run that cannot be written to.

    Raises:
        UserError: it is read-only.
    """
    if not os.access(run.folder, os.W_OK):
        raise UserError(f"{run.folder} is read-only.", "Copy the run to a folder that you can write to.")


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
