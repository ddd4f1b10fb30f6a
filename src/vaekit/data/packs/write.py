"""Writing of the files of a pack."""

import csv
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.config.data import DataConfig
from vaekit.data.copies import near_copies
from vaekit.data.packs.cache import UnusableFolder
from vaekit.data.packs.checks import (
    Look,
    copy_notes,
    equal_images,
    group_notes,
    joined_groups,
    look_at,
    look_notes,
    split_notes,
)
from vaekit.data.packs.decoded import DecodedSource
from vaekit.data.sources.pixels import slices
from vaekit.data.splits import LEFT_OUT, SPLITS, TEST, assign_splits, groups_by_path
from vaekit.errors import setting

MAX_NEAR_SHARE, MAX_NEAR_IMAGES = 0.1, 10
"""Nearly equal images stay in one split up to this share of all, or this number if that is more."""


def write_pack(
    folder: Path, source: DecodedSource, name: str, settings: DataConfig, splitting: bool = True
) -> None:
    """Write the files of a pack: images.npy, labels.npy or conditions.npy, table.csv and, with its metadata,
    pack.json.

    Without `splitting` all images are kept in the splits of the source.
    """
    notes, skipped, copies = list(source.notes), list(source.skipped), list[tuple[str, str]]()
    splits = source.splits
    if splitting:
        look = look_at(source)
        splits, copies = _split(source, look, settings, notes)
        notes += split_notes(source, splits, settings.validation)
        skipped += _duplicates(source, splits, {path for path, _ in copies})
        notes += look_notes(source, splits, look, grouped=settings.group is not None)
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
    columns = _write_conditions(folder / "conditions.npy", source, order, hashing)
    metadata = {
        "name": name,
        "fingerprint": hashing.hexdigest(),
        "contents": hashlib.sha256(np.unique(source.content).tobytes()).hexdigest(),
        "classes": source.classes,
        "conditions": columns,
        "splits": ranges,
        "counts": _counts(source, rows_of_splits),
        "size_note": source.size_note,
        "skipped": skipped,
        "copies": copies,
        "other_files": source.other_files,
        "notes": notes,
        "reading": source.reading,
        "bands": source.bands,
    }
    (folder / "pack.json").write_text(json.dumps(metadata), encoding="utf-8")


def _write_conditions(
    path: Path, source: DecodedSource, order: NDArray[np.intp], hashing: Any
) -> list[dict[str, Any]]:
    """Write the conditions of images, and hash them; the columns as records, none without conditions."""
    if source.conditions is None:
        return []
    values = source.conditions.values[order]
    columns = [column.model_dump() for column in source.conditions.columns]
    np.save(path, values)
    hashing.update(json.dumps(columns).encode())
    hashing.update(values.tobytes())
    return columns


def _counts(source: DecodedSource, rows_of_splits: dict[str, NDArray[np.intp]]) -> dict[str, Any]:
    """The number of images in each split, or of each class in each."""
    if not source.classes:
        return {split: len(rows) for split, rows in rows_of_splits.items()}
    return {
        split: dict(Counter(source.classes[label] for label in source.labels[rows].tolist()))
        for split, rows in rows_of_splits.items()
    }


def _split(
    source: DecodedSource, look: Look, settings: DataConfig, notes: list[str]
) -> tuple[NDArray[np.int8], list[tuple[str, str]]]:
    """The split of every image, with copies left out; also (path, path of the image it is a copy of)."""
    rows, first = np.arange(len(source.content)), equal_images(source)
    groups = near_copies(look.thumbnails)
    sizes = np.bincount(groups)[groups]
    most = max(MAX_NEAR_SHARE * len(rows), MAX_NEAR_IMAGES)  # with more, little could be held out
    near = groups = np.where(sizes > most, first, groups)
    by_path = None
    if settings.group:
        by_path, unmatched = groups_by_path([source.path(row) for row in rows.tolist()], settings.group)
        if unmatched:
            images = "1 image matches" if len(unmatched) == 1 else f"{len(unmatched):,} images match"
            notes.append(
                f"{images} no {setting('group', settings.group)}, e.g. {unmatched[0]}: each is a group."
            )
        groups = joined_groups(by_path, near)
    splits = assign_splits(source.splits, source.content, settings.validation, groups)
    copies: list[tuple[str, str]] = []
    if source.drop_copies:
        # A copy in another split is one of an image that is left out there
        dropped = np.flatnonzero((first != rows) & (splits == splits[first]) & (splits != LEFT_OUT))
        copies = [(source.path(row), source.path(first[row])) for row in dropped.tolist()]
        splits[dropped] = LEFT_OUT
    rest = np.flatnonzero(splits != LEFT_OUT)
    notes += copy_notes(source, first, near[rest])
    if by_path is not None:
        notes += group_notes(source, by_path[rest], splits[rest], rest)
    return splits, copies


def _duplicates(source: DecodedSource, splits: NDArray[np.int8], copies: set[str]) -> list[tuple[str, str]]:
    """(path, reason) of the images that are left out as duplicates of others in more protected splits."""
    rows = np.array(
        [row for row in np.flatnonzero(splits == LEFT_OUT).tolist() if source.path(row) not in copies],
        np.int64,
    )
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
    """A phrase such as "2 truncated, 1 excluded". Reasons that differ in numbers are counted together."""
    reasons: dict[str, list[str]] = {}
    for _, reason in skipped:
        short = re.sub(r"^(damaged|not readable)\b.*", r"\1", reason)
        reasons.setdefault(re.sub(r"-?\d[\d.e+-]*", "0", short), []).append(short)
    counts = sorted(reasons.values(), key=len, reverse=True)
    return ", ".join(f"{len(each):,} {each[0]}{', ...' if len(set(each)) > 1 else ''}" for each in counts)


def require_pack_space(folder: Path, count: int, bytes_per_image: int) -> None:
    """Raise `UnusableFolder` if the disk of `folder` has no space for a pack."""
    needed, free = count * (bytes_per_image + 200) / 1e6, shutil.disk_usage(folder).free / 1e6
    if free < needed:
        raise UnusableFolder(folder, f"needs {needed:,.0f} MB, but only {free:,.0f} MB are free")
