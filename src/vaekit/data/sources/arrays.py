"""Images in arrays: in memory, in .npz and .npy files, in IDX files, from torch data sets."""

import gzip
import hashlib
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.splits import SPLITS, TEST, TRAIN, VALIDATION
from vaekit.errors import UserError

Pixels = NDArray[np.uint8]


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


# --- Pixels -------------------------------------------------------------------------------------------------


def to_uint8_images(value: Any, name: str = "the array") -> Pixels:
    """Convert images in memory to uint8 [N, H, W, C].

    Args:
        value: an array [N, H, W] or [N, H, W, C], a torch tensor [N, H, W] or [N, C, H, W], or a list of
            arrays; uint8, bool, or floats in [0, 1], which are rounded to 256 levels.
        name: name of the images in messages.
    """
    images = to_nhwc(value, name)
    check_pixels(images, name)
    return as_uint8(images)


def to_nhwc(value: Any, name: str) -> NDArray[Any]:
    """Convert images to [N, H, W, C], without copying if possible; the dtype stays."""
    if is_tensor(value):
        tensor = value.detach().cpu()
        array: NDArray[Any] = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        if array.ndim == 4 and array.shape[1] in (1, 3, 4):
            array = array.transpose(0, 2, 3, 1)
    else:
        try:
            array = np.asarray(value)
        except ValueError:
            hint = "Give arrays of one size, or a folder of image files."
            raise UserError(f"The images of {name} differ in shape.", hint) from None
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or 0 in array.shape[1:]:
        shape = " x ".join(map(str, np.shape(value)))
        hint = "Images must be [N, H, W] or [N, H, W, C] with 1, 3 or 4 channels."
        raise UserError(f"The shape of {name} is {shape}.", hint)
    return array


def check_pixels(images: NDArray[Any], name: str) -> None:
    """Check that values are uint8, bool, or floats in [0, 1]."""
    if images.dtype in (np.uint8, np.bool_) or not images.size:
        return
    if images.dtype.kind != "f":
        hint = "Use uint8 (0 to 255), bool, or floats from 0 to 1."
        raise UserError(f"The dtype of {name} is {images.dtype}.", hint)
    low, high = float(images.min()), float(images.max())  # NaN if any value is NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"There are NaN or infinite values in {name}.", "Remove those images.")
    if low < 0 or high > 1:
        is_8_bits = low >= 0 and high <= 255
        hint = "Divide by 255." if is_8_bits else "Undo the normalization; from [-1, 1] by (x + 1) / 2."
        raise UserError(f"The values of {name} range from {low:.3g} to {high:.3g} instead of 0 to 1.", hint)


def as_uint8(images: NDArray[Any]) -> Pixels:
    """Convert images that `check_pixels` accepts to uint8."""
    return images if images.dtype == np.uint8 else np.rint(images.astype(np.float32) * 255).astype(np.uint8)


def slices(count: int, size: int = 1024) -> Iterator[slice]:
    """Divide the range 0 to `count` into slices of at most `size`."""
    return (slice(at, min(at + size, count)) for at in range(0, count, size))


def is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported torch
    return torch is not None and isinstance(value, torch.Tensor)


# --- Arrays in memory ---------------------------------------------------------------------------------------


def array_source(value: Any) -> ArraySource:
    """A source from images, or from a tuple (images, labels)."""
    images, labels = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if labels is not None:
        labels = labels.detach().cpu().numpy() if is_tensor(labels) else np.asarray(labels)
    block = ArrayBlock(to_nhwc(images, "the array"), labels)
    return ArraySource("array", content_key(block), lambda: [block])


def content_key(block: ArrayBlock) -> tuple[str, ...]:
    """Key of arrays in memory: a hash of their contents."""
    hashing = hashlib.sha256()
    for part in slices(len(block.images)):
        hashing.update(np.ascontiguousarray(block.images[part]).data)
    if block.labels is not None:
        hashing.update(repr(block.labels.tolist()).encode())
    return ("array", str(block.images.shape), str(block.images.dtype), hashing.hexdigest())


# --- Files of arrays ----------------------------------------------------------------------------------------

NPZ_NAMES = {
    TRAIN: ("x_train y_train", "train_images train_labels", "images labels", "x y", "arr_0 arr_1"),
    VALIDATION: ("x_val y_val", "x_validation y_validation", "val_images val_labels", "x_valid y_valid"),
    TEST: ("x_test y_test", "test_images test_labels"),
}
"""Names of images and labels in .npz files: those of Keras, MedMNIST and NumPy."""


def file_key(*paths: Path) -> tuple[str, ...]:
    """Key of files: their paths, sizes and modification times."""
    stats = [(path.resolve(), path.stat()) for path in paths]
    return tuple(f"{path}|{stat.st_size}|{stat.st_mtime_ns}" for path, stat in stats)


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
    blocks = []
    for split, names in NPZ_NAMES.items():
        for images, labels in map(str.split, names):
            if images in keys:
                pixels = to_nhwc(loaded[keys[images]], f"{images} of {name}")
                blocks.append(ArrayBlock(pixels, loaded[keys[labels]] if labels in keys else None, split))
                break
    if any(block.split == TRAIN for block in blocks):
        return blocks
    if len(keys) == 1:
        return [ArrayBlock(to_nhwc(loaded[loaded.files[0]], name))]
    hint = "Name its arrays x_train, y_train, x_test, y_test, or images, labels."
    raise UserError(f"'{name}' contains {', '.join(loaded.files) or 'nothing'}.", hint)


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
