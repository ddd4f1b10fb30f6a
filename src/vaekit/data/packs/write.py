"""Writing of the files of a pack."""

import csv
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.config.data import DataConfig
from vaekit.data.sources.arrays import Pixels, slices
from vaekit.data.sources.folder import UNSUPPORTED
from vaekit.data.splits import LEFT_OUT, SPLITS, TEST, assign_splits
from vaekit.errors import UserError, setting


@dataclass(frozen=True)
class DecodedSource:
    """The images of a source after decoding, before they are assigned to splits."""

    path: Callable[[int], str]
    labels: NDArray[np.int64]
    """[N], -1 without classes."""
    classes: tuple[str, ...]
    splits: NDArray[np.int8]
    """[N], the split of each image in its source."""
    content: NDArray[np.uint64]
    """[N], digests of the images' contents."""
    sizes: NDArray[np.int32]
    """[N, 2], original widths and heights in pixels."""
    shape: tuple[int, int, int]
    """H, W, C of the pack."""
    read: Callable[[NDArray[np.intp]], Pixels]
    """The images [n, H, W, C] of the given rows."""
    size_note: str
    """A phrase that describes the size of the images and how they were resized."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    other_files: int = 0


def write_pack(folder: Path, source: DecodedSource, name: str, settings: DataConfig) -> None:
    """Write the files of a pack: images.npy, labels.npy, table.csv and, with its metadata, pack.json."""
    splits = assign_splits(source.splits, source.content, settings.validation)
    rows_of_splits = {split: np.flatnonzero(splits == number) for number, split in enumerate(SPLITS)}
    order = np.concatenate(list(rows_of_splits.values()))
    ends = np.cumsum([len(rows) for rows in rows_of_splits.values()]).tolist()
    ranges = dict(zip(SPLITS, zip([0, *ends], ends, strict=False), strict=True))
    labels = source.labels[order]
    require_pack_space(folder, len(order), int(np.prod(source.shape)))
    _write_images(folder / "images.npy", source, list(rows_of_splits.values()))
    np.save(folder / "labels.npy", labels)
    _write_table(folder / "table.csv", source, rows_of_splits)
    hashing = hashlib.sha256(json.dumps([source.shape, ranges, source.classes]).encode())
    hashing.update(source.content[order].tobytes())
    hashing.update(labels.tobytes())
    counts: dict[str, Any] = {split: len(rows) for split, rows in rows_of_splits.items()}
    if source.classes:
        for split, rows in rows_of_splits.items():
            counts[split] = dict(Counter(source.classes[label] for label in source.labels[rows].tolist()))
    metadata = {
        "name": name,
        "fingerprint": hashing.hexdigest(),
        "classes": source.classes,
        "splits": ranges,
        "counts": counts,
        "size_note": source.size_note,
        "skipped": [*source.skipped, *_duplicates(source, splits)],
        "other_files": source.other_files,
    }
    (folder / "pack.json").write_text(json.dumps(metadata), encoding="utf-8")


def _duplicates(source: DecodedSource, splits: NDArray[np.int8]) -> list[tuple[str, str]]:
    """(path, reason) of the images that are left out as duplicates."""
    rows = np.flatnonzero(splits == LEFT_OUT)
    in_test_split = np.isin(source.content[rows], source.content[splits == TEST])
    places = np.where(in_test_split, "test", "validation")
    return [(source.path(row), f"duplicated in {at}") for row, at in zip(rows.tolist(), places, strict=True)]


def _write_images(path: Path, source: DecodedSource, rows_of_splits: Sequence[NDArray[np.intp]]) -> None:
    shape = (sum(map(len, rows_of_splits)), *source.shape)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for rows in rows_of_splits:
            for part in slices(len(rows)):
                file.write(np.ascontiguousarray(source.read(rows[part])).data)


def _write_table(path: Path, source: DecodedSource, rows_of_splits: dict[str, NDArray[np.intp]]) -> None:
    names = (*source.classes, "")  # label -1 is the last
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("path", "label", "split", "width", "height"))
        for split, rows in rows_of_splits.items():
            for row in rows.tolist():
                label, size = names[source.labels[row]], source.sizes[row].tolist()
                table.writerow((source.path(row), label, split, *size))


def count_reasons(skipped: Sequence[tuple[str, str]]) -> str:
    """A phrase such as "2 truncated, 1 HEIC, 1 AVIF (unsupported; convert to JPEG)"."""
    reasons = Counter(reason.split(" (")[0] for _, reason in skipped).most_common()
    phrases = [f"{count:,} {reason}" for reason, count in reasons]
    formats = [phrase.removesuffix(UNSUPPORTED) for phrase in phrases if UNSUPPORTED in phrase]
    others = [phrase for phrase in phrases if UNSUPPORTED not in phrase]
    return ", ".join([*others, *formats]) + (" (unsupported; convert to JPEG)" if formats else "")


def require_pack_space(folder: Path, count: int, bytes_per_image: int) -> None:
    """Raise UserError if the disk of `folder` has no space for a pack."""
    needed, free = count * (bytes_per_image + 200) / 1e6, shutil.disk_usage(folder).free / 1e6
    if free < needed:
        sizes = f"{needed:,.0f} MB, but only {free:,.0f} MB are free in {folder}"
        hint = f"Free some space, or use another disk with XDG_CACHE_HOME or {setting('out')}."
        raise UserError(f"Caching {count:,} images needs {sizes}.", hint)
