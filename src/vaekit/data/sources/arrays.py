"""Images in arrays: in memory, in .npz and .npy files, in IDX files, from torch data sets."""

import gzip
import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.sources.pixels import Pixels, is_tensor, slices, to_nhwc
from vaekit.data.splits import SPLITS, TEST, TRAIN, VALIDATION
from vaekit.errors import UserError
from vaekit.utils.logging import log


@dataclass(frozen=True)
class ArrayBlock:
    """Images of one split and their labels, as they come."""

    images: NDArray[Any]
    """[N, H, W, C], of any dtype that `as_uint8` takes."""
    labels: NDArray[Any] | None = None
    split: int = TRAIN


@dataclass(frozen=True)
class ArraySource:
    """A data set of arrays, which `read` loads."""

    name: str
    key: tuple[str, ...]
    read: Callable[[], list[ArrayBlock]]
    classes: tuple[str, ...] = ()
    """Names of the labels 0, 1, 2, ...; if empty, the labels themselves are the names."""
    notes: tuple[str, ...] = ()
    """What the images were taken for."""
    has_levels: bool = False
    """Whether images are levels already, by the range of the settings."""
    white: float | None = None
    """The value that level 255 stands for, if the dtype of the images does not say it."""


# --- Arrays in memory ---------------------------------------------------------------------------------------


def array_source(value: Any) -> ArraySource:
    """A source from images, from (images, labels), or from a pair of the latter: training and test."""
    pairs = [value]
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(one, tuple) for one in value):
        pairs = list(value)
    blocks = []
    for split, pair in zip((TRAIN, TEST), pairs, strict=False):
        images, labels = pair if isinstance(pair, tuple) and len(pair) == 2 else (pair, None)
        if labels is not None:
            labels = labels.detach().cpu().numpy() if is_tensor(labels) else np.asarray(labels)
        blocks.append(ArrayBlock(to_nhwc(images, "the array"), labels, split))
    keys = tuple(part for block in blocks for part in content_key(block))
    return ArraySource("array", keys, lambda: blocks)


def content_key(block: ArrayBlock) -> tuple[str, ...]:
    """Key of arrays in memory: a hash of their contents."""
    hashing = hashlib.sha256()
    for part in slices(len(block.images)):
        hashing.update(np.ascontiguousarray(block.images[part]).data)
    if block.labels is not None:
        hashing.update(repr(block.labels.tolist()).encode())
    return ("array", str(block.images.shape), str(block.images.dtype), hashing.hexdigest())


# --- Files of arrays ----------------------------------------------------------------------------------------

IMAGE_NAMES = ("images", "image", "x", "data", "imgs", "arr_0")
LABEL_NAMES = ("labels", "label", "y", "targets", "target", "classes", "class", "arr_1")
"""Names of images and of labels in .npz files: those of Keras, MedMNIST, NumPy and others."""
SPLIT_NAMES = {
    TRAIN: ("train", "training", ""),
    VALIDATION: ("val", "valid", "validation"),
    TEST: ("test", "testing"),
}
"""What such a name begins or ends with, by split, as in x_train and train_images."""


def file_key(*paths: Path) -> tuple[str, ...]:
    """Key of files: their paths, sizes, times and places on the disk."""
    return tuple(f"{path.resolve()}|{status_key(path.stat())}" for path in paths)


def status_key(status: os.stat_result | None) -> str:
    """What changes when a file does: also if it is swapped for another of equal size and time."""
    return (
        ""
        if status is None
        else f"{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"
    )


def numpy_source(path: Path) -> ArraySource:
    """A source from a .npy file of images, or a .npz file of images and labels under the usual names."""

    def read() -> list[ArrayBlock]:
        try:
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return [ArrayBlock(to_nhwc(loaded, path.name))]
            with loaded:
                return _npz_blocks(loaded, path.name)
        except UserError:
            raise
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            message = f"'{path}' cannot be read as NumPy arrays ({error})."
            raise UserError(message, "Save it again with numpy.savez.") from None

    return ArraySource(path.stem, file_key(path), read)


def _npz_blocks(loaded: Any, name: str) -> list[ArrayBlock]:
    keys = {key.lower(): key for key in loaded.files}
    used: set[str] = set()
    blocks = []
    for split, affixes in SPLIT_NAMES.items():
        images = _key_of(keys, IMAGE_NAMES, affixes)
        if images is None:
            continue
        labels = _key_of(keys, LABEL_NAMES, affixes)
        if labels is None and split == TRAIN:
            labels = _key_of(keys, LABEL_NAMES, ("",))
        used |= {key for key in (images, labels) if key is not None}
        pixels = to_nhwc(loaded[images], f"{images} of {name}")
        blocks.append(ArrayBlock(pixels, None if labels is None else _labels(loaded, labels, name), split))
    if any(block.split == TRAIN for block in blocks):
        if unused := [key for key in loaded.files if key not in used]:
            log.warning(f"Not used of {name}: {', '.join(unused)}. Labels are named labels, y or y_train.")
        return blocks
    if len(keys) == 1:
        return [ArrayBlock(to_nhwc(loaded[loaded.files[0]], name))]
    hint = "Name its arrays x_train, y_train, x_test, y_test, or images, labels."
    raise UserError(f"'{name}' contains {', '.join(loaded.files) or 'nothing'}.", hint)


def _key_of(keys: dict[str, str], names: tuple[str, ...], affixes: tuple[str, ...]) -> str | None:
    """The key of the first array that has one of the names, with one of the affixes before or after it."""
    for affix in affixes:
        for name in names:
            for key in (f"{name}_{affix}", f"{affix}_{name}", f"{name}{affix}", f"{affix}{name}"):
                if key.strip("_") in keys:
                    return keys[key.strip("_")]
    return None


def _labels(loaded: Any, key: str, name: str) -> NDArray[Any]:
    try:
        labels: NDArray[Any] = loaded[key]
    except ValueError:  # it would have to be unpickled
        message = f"{key} of '{name}' is an array of Python objects, which is not read."
        raise UserError(message, f"Save it as text: {key}.astype(str).") from None
    return labels


IDX_IMAGES = re.compile(r"^(.*)images([.-])idx3(-ubyte(?:\.gz)?)$")


def idx_source(folder: Path) -> ArraySource | None:
    """A source from a folder of IDX files, as MNIST has them, or None if there are none.

    Files with "t10k" or "test" in their names are the test split. An optional file classes.txt names the
    classes, one per line.
    """
    files_of_split: dict[int, tuple[Path, Path | None]] = {}
    for path in sorted(folder.iterdir()):
        match = IDX_IMAGES.match(path.name)
        if not match or not path.is_file():
            continue
        split = TEST if "t10k" in match[1] or "test" in match[1] else TRAIN
        labels = path.with_name(f"{match[1]}labels{match[2]}idx1{match[3]}")
        # The plain file is sorted before its compressed copy
        first, _ = files_of_split.setdefault(split, (path, labels if labels.is_file() else None))
        if path.name.removesuffix(".gz") != first.name.removesuffix(".gz"):
            message = f"'{folder}' contains several IDX files of {SPLITS[split]} images."
            raise UserError(message, "Put each data set into its own folder.")
    if not files_of_split:
        return None
    files = [path for pair in files_of_split.values() for path in pair if path is not None]

    def read() -> list[ArrayBlock]:
        return [
            ArrayBlock(_read_idx(images, 3)[..., None], _read_idx(labels, 1) if labels else None, split)
            for split, (images, labels) in sorted(files_of_split.items())
        ]

    classes: tuple[str, ...] = ()
    if (names := folder / "classes.txt").is_file():
        classes = tuple(names.read_text(encoding="utf-8").splitlines())
        files.append(names)
    return ArraySource(folder.resolve().name, file_key(*files), read, classes)


def _read_idx(path: Path, axes: int) -> Pixels:
    """Read an IDX file of bytes: two zeros, the type (8), the number of axes, their sizes, the values."""
    hint = "Download it again."
    damaged = UserError(f"'{path}' is truncated or damaged.", hint)
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        start = 4 + 4 * axes
        kind, *shape = struct.unpack(f">{axes + 1}I", data[:start])
    except (OSError, EOFError, struct.error, zlib.error):
        raise damaged from None
    if kind != 0x0800 + axes:
        raise UserError(f"'{path}' is not an IDX file of bytes with {axes} axes.", hint)
    if len(data) - start != np.prod(shape, dtype=np.int64):
        raise damaged
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
