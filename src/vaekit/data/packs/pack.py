"""Packs: the images of a data set, decoded and resized once, in memory-mapped files."""

import csv
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.config.data import DataConfig
from vaekit.data.packs.build import build_pack
from vaekit.data.packs.cache import (
    UnusableFolder,
    in_usable_folder,
    lock_pack,
    packs_folders,
    remove_leftovers,
)
from vaekit.data.packs.reading import Reading, decode_spec
from vaekit.data.packs.write import count_reasons
from vaekit.data.sources.columns import Column
from vaekit.data.sources.conditions import require_table
from vaekit.data.sources.files import FilesSource
from vaekit.data.sources.find import Source, find_source
from vaekit.data.sources.layout import NO_CLASS
from vaekit.data.sources.pixels import Pixels
from vaekit.data.sources.torch_datasets import dataset_source, is_dataset
from vaekit.data.splits import SPLITS
from vaekit.errors import UserError, spelled
from vaekit.utils.files import atomic_folder
from vaekit.utils.logging import log

PACK_FORMAT = 7
"""Part of the key of every pack, so that packs of older formats are not opened."""
CHANNEL_NAMES = {1: "gray", 3: "colour", 4: "colour with transparency"}


def channel_text(channels: int) -> str:
    """What channels are, by their number: "gray", "colour", "5 bands"."""
    return CHANNEL_NAMES.get(channels, f"{channels} bands")


BUNDLED = "the bundled sample"
"""Description of the source when no data are given."""
AUGMENTATION = ("flip", "crop", "jitter", "balance")
"""Settings of the data that do not change the pack."""
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
    conditions: NDArray[np.float32] | None = None
    """[N, K], the numbers of `columns` for every image; None without."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the images are conditioned on instead of classes."""
        return tuple(Column.model_validate(column) for column in self.metadata.get("conditions", ()))

    @property
    def all_labels(self) -> NDArray[Any]:
        """The conditions of all images where there are any, or else `labels`."""
        return self.labels if self.conditions is None else self.conditions

    @property
    def shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.images.shape
        return channels, height, width

    def count(self, split: str) -> int:
        rows = self.splits[split]
        return int(rows.stop - rows.start)

    def split_labels(self, split: str) -> NDArray[Any]:
        return self.all_labels[self.splits[split]]

    def read(self, split: str, rows: NDArray[np.int64]) -> tuple[Pixels, NDArray[Any]]:
        rows = rows + self.splits[split].start
        # Gathered by NumPy: as fast as torch on one thread, and it does not wake the threads that compute.
        pixels = np.asarray(self.images).reshape(len(self.images), -1).take(rows, axis=0)
        return pixels.reshape(len(rows), *self.images.shape[1:]), np.asarray(self.all_labels).take(
            rows, axis=0
        )

    @property
    def summary(self) -> str:
        """Description of the images: one sentence per line."""
        channels = self.channel_text
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
        lines += self.metadata["notes"]
        return "\n".join(lines)

    def describe(self) -> dict[str, Any]:
        """The contents of dataset.json: fingerprint, counts per class and split, files skipped and why."""
        channels, height, width = self.shape
        return {
            "fingerprint": self.fingerprint,
            "contents": self.metadata["contents"],
            "source": self.source,
            "images": len(self.images),
            "width": width,
            "height": height,
            "channels": channels,
            "classes": list(self.classes),
            "splits": {split: self.count(split) for split in SPLITS},
            "counts": self.metadata["counts"],
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
            "copies": [{"path": path, "of": of} for path, of in self.metadata["copies"]],
            "files_that_are_no_images": self.metadata["other_files"],
            "notes": [spelled(note) for note in self.metadata["notes"]],
            "reading": self.metadata["reading"],
        }

    @property
    def channel_text(self) -> str:
        """What the channels are: "gray", "colour", "5 bands"."""
        channels = self.shape[0]
        return f"{channels} bands" if self.metadata["bands"] else channel_text(channels)

    def paths(self) -> list[str]:
        """The path of every image in its folder, or "split/number" for arrays."""
        with (self.folder / "table.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [row["path"] for row in csv.DictReader(file)]


def open_pack(
    source: Any,
    settings: DataConfig,
    quiet: bool = False,
    *,
    known_classes: Sequence[str] = (),
    reading: Reading | None = None,
    splitting: bool = True,
    run: Path | None = None,
) -> Pack:
    """Open the pack of a source, which is built first if there is none for these settings.

    It is in the cache folder, or where that is read-only or full, in a folder next to the run.

    Args:
        source: an argument for `find_source`, or a torch `Dataset` or `DataLoader`.
        settings: how images are read, resized and split.
        quiet: show no progress.
        known_classes: classes of a trained model, to find again in other images.
        reading: how the values of the training images were read; None to choose it by these images.
        splitting: cut a validation split from the training images, and leave out copies.
        run: the folder of the run that the images are for; None for a new one in runs/.

    Raises:
        UserError: the source is wrong or has too few images, or neither folder can hold the pack.
    """
    folders = usable = packs_folders(run)
    resolved: Source
    in_folder = isinstance(source, (str, Path)) and Path(source).expanduser().is_dir()
    require_table(settings, Path(source).expanduser() if in_folder else None)
    if is_dataset(source):
        size = settings.width_height
        spec = decode_spec(settings, *(size or (1, 1)))

        def read(folder: Path) -> tuple[Path, Source]:
            return folder, dataset_source(source, folder, spec, size is not None, quiet)

        folder, resolved = in_usable_folder(folders, None, read)
        usable = folder, folders[1]  # what is said of another one is said once
    else:
        resolved = find_source(source, settings, known_classes)
    if settings.condition and not isinstance(resolved, FilesSource):
        raise UserError("needs image files, in a folder or an archive.", option="condition")
    pack_settings = settings.model_dump(exclude=set(AUGMENTATION))
    parts = [PACK_FORMAT, resolved.key, pack_settings, known_classes, reading and asdict(reading), splitting]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    text = _source_text(source)
    for folder in folders:
        pack = _open(folder / key, text)
        if pack is not None and not any(reason.startswith(TRANSIENT) for _, reason in pack.skipped):
            return pack
    return in_usable_folder(
        usable,
        source,
        lambda folder: _built(_Build(resolved, settings, folder / key, text, quiet, reading, splitting)),
    )


def _built(build: "_Build") -> Pack:
    """Build a pack, or wait for the process that builds it."""
    with lock_pack(build.folder, wait=False) as held:
        if held:
            return build.run()
    log.info("Waiting for another process that is reading the same images.")
    with lock_pack(build.folder):
        return _open(build.folder, build.source_text) or build.run()


@dataclass(frozen=True)
class _Build:
    """The building of a pack."""

    source: Source
    settings: DataConfig
    folder: Path
    source_text: str
    quiet: bool
    reading: Reading | None
    splitting: bool

    def run(self) -> Pack:
        remove_leftovers(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)  # a damaged pack, which could not be opened
        try:
            with atomic_folder(self.folder) as temporary:
                build_pack(self.source, self.settings, temporary, self.quiet, self.reading, self.splitting)
        except OSError as error:
            raise UnusableFolder(self.folder.parent, f"cannot hold the images ({error})") from error
        pack = _open(self.folder, self.source_text)
        if pack is None:
            raise OSError(f"the pack {self.folder} cannot be opened just after it was built")
        return pack


def _open(folder: Path, source_text: str) -> Pack | None:
    """The pack in a folder, or None if there is none or it is damaged."""
    try:
        metadata = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
        # Copy-on-write, although nothing writes to it, because torch warns about read-only memory.
        images = np.load(folder / "images.npy", mmap_mode="c")
        labels = np.load(folder / "labels.npy", mmap_mode="c")
        conditions = np.load(folder / "conditions.npy", mmap_mode="c") if metadata.get("conditions") else None
        splits = {split: slice(start, end) for split, (start, end) in metadata["splits"].items()}
        skipped = [(path, reason) for path, reason in metadata["skipped"]]
        name, classes, digest = metadata["name"], tuple(metadata["classes"]), metadata["fingerprint"]
        if not {"contents", "notes", "reading", "bands", "copies"} <= metadata.keys():
            return None
        fields = name, images, labels, classes, splits, digest, skipped, metadata, conditions
        return Pack(folder, source_text, *fields)
    except (OSError, ValueError, KeyError):
        return None


def _source_text(source: Any) -> str:
    if source is None or isinstance(source, (str, Path)):
        return BUNDLED if source is None else str(source)
    name = type(source).__name__
    if is_dataset(source):
        return f"a {name}"
    return f"{'an' if name == 'ndarray' or name[0] in 'AEIOaeio' else 'a'} {name} in memory"
