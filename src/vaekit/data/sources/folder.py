"""Sources of images: folders, arrays in files or in memory, and the bundled sample."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.sources.arrays import ArraySource, array_source, idx_source, is_tensor, numpy_source
from vaekit.data.splits import TEST, TRAIN, VALIDATION
from vaekit.errors import UserError

READABLE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
)

UNSUPPORTED_FORMATS = (  # noqa: SIM905  shorter than a list
    "heic heif hif avif svg psd xcf jp2 j2k jxl ppm pgm pbm pnm tga ico icns exr hdr dds eps pcx "
    "raw dng cr2 cr3 nef arw orf rw2 raf dcm fits"
).split()
"""Images that are skipped and listed; files with other suffixes are not images."""
UNSUPPORTED = " is not supported"
"""End of the reason for which they are skipped."""
ARCHIVE_SUFFIXES = frozenset((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"))
SPLIT_FOLDERS = {"train": TRAIN, "val": VALIDATION, "validation": VALIDATION, "test": TEST}
NO_CLASS = "(none)"
"""Class of the images outside the class folders."""


@dataclass(frozen=True)
class FolderSource:
    """A folder of image files, in the order of their paths."""

    name: str
    root: Path
    key: tuple[str, ...]
    files: list[str]
    """Paths relative to `root`, separated by "/"."""
    class_names: list[str]
    """The class of each file, or NO_CLASS."""
    splits: NDArray[np.int8]
    skipped: list[tuple[str, str]]
    """(path, reason) of the images that are not opened."""
    other_files: int
    """Number of files that are not images."""


def find_source(source: Any) -> FolderSource | ArraySource:
    """Open a path, an array, a tuple (images, labels), or None for the bundled sample as a source."""
    if source is None:
        return _bundled_sample()
    if isinstance(source, (np.ndarray, list, tuple)) or is_tensor(source):
        return array_source(source)
    if not isinstance(source, (str, os.PathLike)):
        hint = "Give a folder, a .npz or .npy file, an array or a torch Dataset."
        raise UserError(f"An object of type {type(source).__name__} is not a source of images.", hint)
    path = Path(source).expanduser()
    if not path.exists():
        hint = "Give a folder of images, a .npz or .npy file, or a folder of IDX files."
        raise UserError(f"'{source}' does not exist.", hint)
    try:
        if path.is_dir():
            return idx_source(path) or _scan_folder(path)
        if path.suffix.lower() in (".npz", ".npy") and path.is_file():
            return numpy_source(path)
    except PermissionError:
        raise UserError(f"'{path}' is not readable.", "Check its permissions.") from None
    if path.suffix.lower() in ARCHIVE_SUFFIXES:
        raise UserError(f"'{path}' is an archive.", "Unpack it, and give the folder of images.")
    message = f"'{path}' is neither a folder nor a .npz or .npy file."
    raise UserError(message, "Give the folder of the images.")


def _bundled_sample() -> ArraySource:
    """10,000 training images of Fashion-MNIST, 1,000 per class."""
    sample = idx_source(Path(__file__).parent.parent / "sample")
    if sample is None:
        raise FileNotFoundError("The bundled sample is missing from this installation of vaekit.")
    return ArraySource("fashion-mnist-sample", sample.key, sample.read, sample.classes)


def _scan_folder(folder: Path) -> FolderSource:
    """List the image files in a folder and its subfolders by their names; no file is opened.

    Hidden files and folders are ignored. Links to files inside the folder are treated as files; links to
    folders and links to files outside the folder are skipped.
    """
    root = folder.resolve()
    statuses = dict(_scan(root, root))
    files = {path: status for path, status in statuses.items() if isinstance(status, os.stat_result)}
    skipped = sorted((path, reason) for path, reason in statuses.items() if isinstance(reason, str))
    if not files:
        raise _no_images(folder, skipped)
    paths = sorted(files)
    key = [str(root), *(f"{path}|{files[path].st_size}|{files[path].st_mtime_ns}" for path in paths)]
    key += [f"{path}|{reason}" for path, reason in skipped]
    places = [_split_and_class(path) for path in paths]
    splits = np.array([split for split, _ in places], np.int8)
    classes = [name for _, name in places]
    name, other_files = root.name or "images", len(statuses) - len(files) - len(skipped)
    return FolderSource(name, root, tuple(key), paths, classes, splits, skipped, other_files)


def _scan(folder: Path, root: Path) -> Iterator[tuple[str, os.stat_result | str | None]]:
    """Iterate over (path, status) of the files below a folder.

    The status is the reason if an image is not opened, and None if the file is not an image.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        if folder == root:
            raise
        yield folder.relative_to(root).as_posix(), f"folder not readable ({error.strerror})"
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _scan(Path(entry.path), root)
        else:
            yield Path(entry.path).relative_to(root).as_posix(), _check_file(entry, root)


def _no_images(folder: Path, skipped: list[tuple[str, str]]) -> UserError:
    if arrays := sorted(path for path in folder.iterdir() if path.suffix.lower() in (".npz", ".npy")):
        return UserError(f"'{folder}' contains no image files, but {arrays[0].name}.", f"Give '{arrays[0]}'.")
    skip_note = f" ({len(skipped)} skipped, e.g. {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    hint = "Supported formats are JPEG, PNG, WebP, BMP, TIFF and GIF."
    return UserError(f"'{folder}' contains no images{skip_note}.", hint)


def _check_file(entry: os.DirEntry[str], root: Path) -> os.stat_result | str | None:
    suffix = Path(entry.name).suffix.lower()
    if entry.is_symlink() and Path(entry.path).is_dir():
        return "linked to a folder"
    if suffix[1:] in UNSUPPORTED_FORMATS:
        return suffix[1:].upper() + UNSUPPORTED
    if suffix not in READABLE_SUFFIXES:
        return None
    try:
        if entry.is_symlink() and not Path(entry.path).resolve(strict=True).is_relative_to(root):
            return "linked outside the folder"
        status = entry.stat()
    except (OSError, RuntimeError):  # RuntimeError: a link to itself
        return "linked to a missing file" if entry.is_symlink() else "not readable"
    return status if stat.S_ISREG(status.st_mode) else "not a regular file"


def _split_and_class(path: str) -> tuple[int, str]:
    """The split and the class in the path of a file: val/cat/1.png is (VALIDATION, "cat")."""
    *folders, _ = path.split("/")
    split = TRAIN
    if folders and folders[0].lower() in SPLIT_FOLDERS:
        split = SPLIT_FOLDERS[folders.pop(0).lower()]
    return split, folders[0] if folders else NO_CLASS
