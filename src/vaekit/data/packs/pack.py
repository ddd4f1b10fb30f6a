"""Packs: the images of a data set, decoded and resized once, in memory-mapped files."""

import csv
import hashlib
import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.config.data import DataConfig
from vaekit.data.decoding.decode import UnusableError, to_bytes
from vaekit.data.decoding.worker import read_image
from vaekit.data.packs.build import build_pack, resize_spec
from vaekit.data.packs.cache import lock_pack, packs_folder, remove_leftovers
from vaekit.data.packs.write import count_reasons
from vaekit.data.sources.arrays import ArraySource, Pixels
from vaekit.data.sources.folder import NO_CLASS, FolderSource, find_source
from vaekit.data.sources.torch_datasets import dataset_source, is_dataset
from vaekit.data.splits import SPLITS
from vaekit.errors import UserError
from vaekit.utils.files import atomic_folder
from vaekit.utils.logging import log

PACK_FORMAT = 3
"""Part of the key of every pack, so that packs of older formats are not opened."""
CHANNEL_NAMES = {1: "gray", 3: "colour", 4: "colour with transparency"}
BUNDLED = "the bundled sample"
"""Description of the source when no data are given."""
Source = FolderSource | ArraySource
TRANSIENT = ("not readable", "folder not readable", "not found", "too large for", "crashed the decoder")
"""Beginnings of reasons that may not last: files skipped for them are retried every time."""


@dataclass(frozen=True, eq=False)
class Pack:
    """The decoded images and labels of a data set, as an `ImageSource`; each split is a range of rows."""

    folder: Path
    source: str
    """Description of where the images come from."""
    name: str
    """Short name: that of the folder or file."""
    images: Pixels
    """[N, H, W, C], mapped into memory."""
    labels: NDArray[np.int64]
    """[N], indices into `classes`; -1 without classes."""
    classes: tuple[str, ...]
    splits: dict[str, slice]
    """The rows of "train", "validation" and "test"."""
    fingerprint: str
    """Hash of the contents: images, labels, classes and splits."""
    skipped: list[tuple[str, str]]
    """(path, reason) of each image that is not used."""
    metadata: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.images.shape
        return channels, height, width

    def count(self, split: str) -> int:
        rows = self.splits[split]
        return int(rows.stop - rows.start)

    def split_labels(self, split: str) -> NDArray[np.int64]:
        return self.labels[self.splits[split]]

    def read(self, split: str, rows: NDArray[np.int64]) -> tuple[Pixels, NDArray[np.int64]]:
        rows = rows + self.splits[split].start
        # Gathered by NumPy: as fast as torch on one thread, and it does not wake the threads that compute.
        pixels = np.asarray(self.images).reshape(len(self.images), -1).take(rows, axis=0)
        return pixels.reshape(len(rows), *self.images.shape[1:]), np.asarray(self.labels).take(rows)

    @property
    def summary(self) -> str:
        """Description of the images: one sentence per line."""
        channels = CHANNEL_NAMES[self.shape[0]]
        count = len(self.classes)
        classes = f" in {count} class{'es' if count > 1 else ''}" if count else ""
        if NO_CLASS in self.classes:
            classes += f", counting {NO_CLASS}"
        splits = ", ".join(f"{self.count(split):,} {split}" for split in SPLITS if self.count(split))
        lines = [
            f"{len(self.images):,} images{classes} from {self.source}: {splits}",
            f"Images: {channels}, {self.metadata['size_note']}",
        ]
        if self.skipped:
            files = "1 file" if len(self.skipped) == 1 else f"{len(self.skipped):,} files"
            lines.append(f"{files} skipped: {count_reasons(self.skipped)}. Details in dataset.json.")
        return "\n".join(lines)

    def describe(self) -> dict[str, Any]:
        """The contents of dataset.json: fingerprint, counts per class and split, files skipped and why."""
        channels, height, width = self.shape
        return {
            "fingerprint": self.fingerprint,
            "source": self.source,
            "images": len(self.images),
            "width": width,
            "height": height,
            "channels": channels,
            "classes": list(self.classes),
            "splits": {split: self.count(split) for split in SPLITS},
            "counts": self.metadata["counts"],
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "files_that_are_no_images": self.metadata["other_files"],
        }

    def paths(self) -> list[str]:
        """The path of every image in its folder, or "split/number" for arrays."""
        with (self.folder / "table.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [row["path"] for row in csv.DictReader(file)]


def open_pack(source: Any, settings: DataConfig, quiet: bool = False) -> Pack:
    """Open the pack of a source, which is built first if there is none for these settings.

    Args:
        source: an argument for `find_source`, or a torch `Dataset` or `DataLoader`.
        settings: how images are resized and split.
        quiet: show no progress.
    """
    resolved: Source
    if is_dataset(source):
        size = settings.width_height
        spec = resize_spec(settings, *(size or (1, 1)))
        resolved = dataset_source(source, packs_folder(), spec, size is not None, quiet)
    else:
        resolved = find_source(source)
    source_text = _source_text(source)
    pack_settings = settings.model_dump(include={"size", "fit", "background", "alpha", "validation"})
    key = hashlib.sha256(json.dumps([PACK_FORMAT, resolved.key, pack_settings]).encode()).hexdigest()[:32]
    folder = packs_folder() / key
    pack = _open(folder, source_text)
    if pack is not None and not any(reason.startswith(TRANSIENT) for _, reason in pack.skipped):
        return pack
    with lock_pack(folder, wait=False) as held:
        if held:
            return _build(resolved, settings, folder, source_text, quiet)
    log.info("Waiting for another process that is reading the same images.")
    with lock_pack(folder):
        return _open(folder, source_text) or _build(resolved, settings, folder, source_text, quiet)


def _build(source: Source, settings: DataConfig, folder: Path, source_text: str, quiet: bool) -> Pack:
    remove_leftovers(folder)
    shutil.rmtree(folder, ignore_errors=True)  # a damaged pack, which could not be opened
    try:
        with atomic_folder(folder) as temporary:
            build_pack(source, settings, temporary, quiet)
    except OSError as error:
        hint = "Free some space, or set XDG_CACHE_HOME to a folder on another disk."
        raise UserError(f"The images cannot be cached in '{folder.parent}' ({error}).", hint) from error
    pack = _open(folder, source_text)
    if pack is None:
        raise OSError(f"the pack {folder} cannot be opened just after it was built")
    return pack


def _open(folder: Path, source_text: str) -> Pack | None:
    """The pack in a folder, or None if there is none or it is damaged."""
    try:
        metadata = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
        # Copy-on-write, although nothing writes to it, because torch warns about read-only memory.
        images = np.load(folder / "images.npy", mmap_mode="c")
        labels = np.load(folder / "labels.npy", mmap_mode="c")
        splits = {split: slice(start, end) for split, (start, end) in metadata["splits"].items()}
        skipped = [(path, reason) for path, reason in metadata["skipped"]]
        name, classes, digest = metadata["name"], tuple(metadata["classes"]), metadata["fingerprint"]
        return Pack(folder, source_text, name, images, labels, classes, splits, digest, skipped, metadata)
    except (OSError, ValueError, KeyError):
        return None


def _source_text(source: Any) -> str:
    if source is None or isinstance(source, (str, Path)):
        return BUNDLED if source is None else str(source)
    name = type(source).__name__
    if is_dataset(source):
        return f"a {name}"
    return f"{'an' if name == 'ndarray' or name[0] in 'AEIOaeio' else 'a'} {name} in memory"


def load_images(paths: Sequence[str | Path], settings: DataConfig, shape: tuple[int, int, int]) -> Pixels:
    """Read image files to uint8 [N, H, W, C], resized like the training images of a model of `shape`."""
    channels, height, width = shape
    spec = resize_spec(settings, width, height)._replace(keep_alpha=channels == 4)
    images = np.empty((len(paths), height, width, channels), np.uint8)
    for row, path in enumerate(paths):
        with warnings.catch_warnings(action="ignore"):
            try:
                image, _, _ = read_image(str(Path(path).expanduser()), spec)
            except UnusableError as error:
                hint = "Give a JPEG, PNG, WebP, BMP, TIFF or GIF image."
                raise UserError(f"'{path}' cannot be used ({error}).", hint) from None
        images[row] = np.frombuffer(to_bytes(image, channels), np.uint8).reshape(height, width, channels)
    return images
