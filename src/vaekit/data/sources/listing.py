"""The image files in a folder: which there are, and why others are passed over. Changes nothing."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vaekit.data.decoding.archives import ARCHIVE_SUFFIXES
from vaekit.data.decoding.formats import (
    IMAGE_SUFFIXES,
    OTHER_SUFFIXES,
    RAW,
    RAW_SUFFIXES,
    has_suffix,
    sniff_file,
)
from vaekit.data.sources.layout import split_of
from vaekit.data.splits import TEST, TRAIN, VALIDATION

Links = Literal["inside", "follow"]
SYSTEM_FOLDERS = frozenset(
    (
        "__macosx",
        "@eadir",
        "@tmp",
        "@recycle",
        "@sharebin",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "~snapshot",
        "network trash folder",
        "temporary items",
        "$recycle.bin",
        "recycler",
        "lost+found",
        "lost.dir",
        "system volume information",
    )
)
"""Folders of systems and network drives, in lower case: thumbnails, snapshots and deleted files."""
RECOVERED = re.compile(r"found\.\d{3}$", re.IGNORECASE)
"""Folders of what Windows has recovered from a damaged disk."""
ARCHIVES = (*ARCHIVE_SUFFIXES, ".7z", ".rar")
LINKED_FOLDER = "link to a folder"
LINKED_OUTSIDE = "link to a file outside the folder"
LINKED_TWICE = "link to a file that is read already"


@dataclass
class Listing:
    """The files below a folder, by their paths relative to it, separated by "/"."""

    files: dict[str, os.stat_result | None] = field(default_factory=dict)
    """Regular files that are images by their suffix or, if that says nothing, by their first bytes; with
    their status, except in an archive."""
    skipped: dict[str, str] = field(default_factory=dict)
    """The reason for every image, or folder, that is not read."""
    other_files: int = 0
    """Number of files that are not images."""
    tables: list[str] = field(default_factory=list)
    """Names of tables among them, in an archive."""
    archives: list[str] = field(default_factory=list)
    """Paths of archives among them."""
    notes: list[str] = field(default_factory=list)

    def add_other(self, path: str) -> None:
        """Add a file that is no image."""
        self.other_files += 1
        if has_suffix(path, ARCHIVES):
            self.archives.append(path)


def passed_over(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system keeps its own things in."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS or bool(RECOVERED.match(name))


def list_folder(folder: Path, links: Links = "inside") -> Listing:
    """List the image files in a folder and its subfolders.

    Hidden files and folders, and those of systems, are passed over. Of a folder in the cache of Hugging
    Face's hub one snapshot is read.

    Args:
        folder: a folder that exists.
        links: "inside" reads links to files inside the folder only; "follow" all links to files and folders,
            each file once.

    Raises:
        OSError: the folder itself cannot be read.
    """
    root = folder.resolve()
    listing = Listing()
    snapshot, count = snapshot_in(root)
    if snapshot:
        of = "" if count == 1 else f", 1 of {count}"
        listing.notes.append(f"A folder of the cache of Hugging Face's hub: {snapshot}/ is read{of}.")
    inside = frozenset({_identity(root.stat())})
    start = (root / snapshot, f"{snapshot}/") if snapshot else (root, "")
    for path, entry in _walk(start[0], root, links, inside, start[1]):
        if isinstance(entry, str):
            listing.skipped[path] = entry
            continue
        status = _check(entry, root, links)
        if isinstance(status, os.stat_result):
            listing.files[path] = status
        elif status is not None:
            listing.skipped[path] = status
        else:
            listing.add_other(path)
    if links == "follow":
        _read_once(root, listing)
    return listing


def snapshot_in(folder: Path) -> tuple[str | None, int]:
    """The path of the snapshot to read in a folder of the cache of Hugging Face's hub, whose snapshots are
    links to its blobs: the one of its main branch, or else the newest; and the number of snapshots. None in
    other folders."""
    snapshots, main = folder / "snapshots", folder / "refs" / "main"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if not {"blobs", "snapshots"} <= names <= {"blobs", "refs", "snapshots"} or not snapshots.is_dir():
        return None, 0
    present = [path for path in snapshots.iterdir() if any(file.is_symlink() for file in path.rglob("*"))]
    named = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    of_main = [path for path in present if path.name == named]
    newest = sorted(present, key=lambda path: path.stat().st_mtime)
    return (f"snapshots/{(of_main or newest)[-1].name}" if present else None), len(present)


def _walk(
    folder: Path, root: Path, links: Links, above: frozenset[tuple[int, int]], prefix: str = ""
) -> Iterator[tuple[str, "os.DirEntry[str] | str"]]:
    """Iterate over (path, entry) of the files below a folder, or (path, reason) of folders not entered.

    `above` are the folders on the way from `root`, by which loops of links are found.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if folder == root:
            raise
        yield prefix.rstrip("/"), f"folder not readable ({error.strerror})"
        return
    for entry in entries:
        if passed_over(entry.name):
            continue
        path = prefix + entry.name
        try:
            is_folder = entry.is_dir()
            linked = is_folder and entry.is_symlink()
            identity = _identity(entry.stat()) if linked and links == "follow" else None
        except OSError:
            is_folder, linked, identity = False, False, None
        if not is_folder:
            yield path, entry
        elif linked and links == "inside":
            yield path, LINKED_FOLDER
        elif identity in above:
            yield path, "link to a folder that it is in"
        else:
            inside = above | {identity} if identity else above
            if links == "follow" and identity is None:
                inside = above | {_identity(entry.stat())}
            yield from _walk(Path(entry.path), root, links, inside, f"{path}/")


def _check(entry: "os.DirEntry[str]", root: Path, links: Links) -> os.stat_result | str | None:
    """The status of an image file, the reason why it is not read, or None for a file of another kind."""
    named_image = has_suffix(entry.name, IMAGE_SUFFIXES)
    if not named_image and has_suffix(entry.name, OTHER_SUFFIXES):
        return None
    if has_suffix(entry.name, RAW_SUFFIXES):
        return RAW
    linked = entry.is_symlink()
    try:
        if linked and links == "inside" and not Path(entry.path).resolve(strict=True).is_relative_to(root):
            return LINKED_OUTSIDE if named_image else None
        status = entry.stat()
    except (OSError, RuntimeError):  # RuntimeError: a link to itself
        if not named_image:
            return None
        return "link to a missing file" if linked else "not readable"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file" if named_image else None
    if not named_image and sniff_file(entry.path) is None:
        return None
    return status


def _read_once(root: Path, listing: Listing) -> None:
    """Keep one path of each file that several links lead to: one in the folder of a split, else one without
    links, or else the first."""
    seen: dict[tuple[int, int], str] = {}
    in_splits = {
        path for path in listing.files if {TRAIN, VALIDATION, TEST} & set(map(split_of, path.split("/")))
    }
    for path in sorted(listing.files, key=lambda path: (path not in in_splits, _is_linked(root, path), path)):
        status = listing.files[path]
        assert status is not None
        first = seen.setdefault(_identity(status), path)
        if first != path and (_is_linked(root, path) or _is_linked(root, first)):
            listing.skipped[path] = LINKED_TWICE
            del listing.files[path]


def _is_linked(root: Path, path: str) -> bool:
    return (root / path).resolve() != root / path


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
