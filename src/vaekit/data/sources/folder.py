"""What DATA means: a folder of images, arrays in files or in memory, or nothing: the bundled sample."""

import os
import stat
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


UNSUPPORTED_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("heic", "heif", "hif", "avif", "svg", "psd", "xcf", "jp2", "j2k", "jxl", "ppm", "pgm", "pbm", "pnm", "tga"),
        *("ico", "icns", "exr", "hdr", "dds", "eps", "pcx", "raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2"),
        *("raf", "dcm", "fits"),
    )
)
"""Endings of images that are skipped and listed; files of any other ending are no images."""


SPLIT_FOLDERS = {"train": TRAIN, "val": VALIDATION, "validation": VALIDATION, "test": TEST}


NO_CLASS = "(none)"
"""Class of the images that lie beside class folders."""


@dataclass(frozen=True)
class FolderSource:
    """A folder of image files, in the order of their paths."""

    name: str
    root: Path
    key: tuple[str, ...]
    files: list[str]
    """Paths relative to `root`, with '/'."""
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: NDArray[np.int8]
    skipped: list[tuple[str, str]]
    """(path, reason) of the images that are not even tried."""
    other_files: int
    """Files that are no images."""


def find_source(source: Any) -> FolderSource | ArraySource:
    """What `source` names; torch data sets are `torch_datasets.py`'s.

    Args:
        source: a path, an array, (images, labels), or None for the bundled sample.

    Raises:
        UserError: there is no such thing, or it holds no images.
    """
    if source is None:
        return bundled_sample()
    if isinstance(source, (np.ndarray, list, tuple)) or is_tensor(source):
        return array_source(source)
    if not isinstance(source, (str, os.PathLike)):
        raise UserError(
            f"{type(source).__name__} is no source of images: give a folder, a .npz file, an array or a Dataset."
        )
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"There is no {path}: name a folder of images, a .npz or .npy file, or a folder of IDX files.")
    try:
        if path.is_dir():
            return idx_source(path) or scan_folder(path)
        if path.suffix.lower() in (".npz", ".npy") and path.is_file():
            return numpy_source(path)
    except PermissionError:
        raise UserError(f"{path} is not readable: ask its owner for permission.") from None
    raise UserError(f"{path} is neither a folder nor a .npz or .npy file: name the folder that holds the images.")


def bundled_sample() -> ArraySource:
    """10,000 training images of Fashion-MNIST, 1,000 of each of its 10 classes."""
    sample = idx_source(Path(__file__).parent.parent / "sample")
    if sample is None:
        raise FileNotFoundError("the bundled sample is missing from this installation of vaekit")
    return ArraySource("fashion-mnist-sample", sample.key, sample.read, sample.classes)


def scan_folder(folder: Path) -> FolderSource:
    """The image files below `folder`, found by their names alone; no file is opened.

    Hidden files and folders are passed over. Links to files inside the folder count as files; links to folders and
    links out of the folder are skipped.

    Raises:
        UserError: there is no image.
    """
    root = folder.resolve()
    files: dict[str, os.stat_result] = {}
    skipped: list[tuple[str, str]] = []
    other_files = 0
    pending = [root]
    while pending:
        current = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError as error:
            if current == root:
                raise
            skipped.append((current.relative_to(root).as_posix(), f"folder not readable ({error.strerror})"))
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            relative = Path(entry.path).relative_to(root).as_posix()
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif entry.is_symlink() and Path(entry.path).is_dir():
                skipped.append((relative, "a link to a folder"))
            elif (suffix := Path(entry.name).suffix.lower()) in UNSUPPORTED_SUFFIXES:
                skipped.append((relative, f"{suffix[1:].upper()} is not read"))
            elif suffix not in READABLE_SUFFIXES:
                other_files += 1
            else:
                checked = _check_file(entry, root)
                if isinstance(checked, str):
                    skipped.append((relative, checked))
                else:
                    files[relative] = checked
    if not files:
        for array in sorted(path for path in root.iterdir() if path.suffix.lower() in (".npz", ".npy")):
            raise UserError(f"{folder} holds no image files, but {array.name}: give {folder / array.name} itself.")
        skip_note = f" ({len(skipped)} skipped: {skipped[0][0]} {skipped[0][1]})" if skipped else ""
        raise UserError(f"{folder} holds no images{skip_note}: put JPEG, PNG, WebP, BMP, TIFF or GIF files there.")
    paths = sorted(files)
    skipped.sort()
    key = [str(root), *(f"{path}|{files[path].st_size}|{files[path].st_mtime_ns}" for path in paths)]
    key += [f"{path}|{reason}" for path, reason in skipped]
    places = [_split_and_class(path) for path in paths]
    classes, labels = _classes([name for _, name in places])
    splits = np.array([split for split, _ in places], np.int8)
    return FolderSource(root.name or "images", root, tuple(key), paths, labels, classes, splits, skipped, other_files)


def _check_file(entry: os.DirEntry[str], root: Path) -> os.stat_result | str:
    """The size and time of a file, or the reason why it is not opened."""
    try:
        if entry.is_symlink():
            target = Path(entry.path).resolve(strict=True)
            if not target.is_relative_to(root):
                return "a link out of the folder"
        file = entry.stat()
    except (OSError, RuntimeError):  # RuntimeError: a link to itself
        return "a link to nothing" if entry.is_symlink() else "not readable"
    return file if stat.S_ISREG(file.st_mode) else "not a regular file"


def _split_and_class(path: str) -> tuple[int, str | None]:
    """The split and the class that the folders above a file name: val/cat/1.png -> (VALIDATION, "cat")."""
    *folders, _ = path.split("/")
    split = SPLIT_FOLDERS.get(folders[0].lower()) if folders else None
    if split is not None:
        folders = folders[1:]
    return TRAIN if split is None else split, folders[0] if folders else None


def _classes(names: list[str | None]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes, in the order of their names, and the class of every image; -1 where there are no classes."""
    classes = sorted({name for name in names if name is not None})
    if classes and None in names:
        classes.append(NO_CLASS)
    numbers: dict[str | None, int] = {name: index for index, name in enumerate(classes)}
    numbers[None] = len(classes) - 1  # the class of the rest, or -1
    return tuple(classes), np.array([numbers[name] for name in names], np.int64)
