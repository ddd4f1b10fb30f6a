"""Image files in a folder or an archive, with the splits and classes that their paths name."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from vaekit.config.data import DataConfig
from vaekit.data.decoding.archives import Archive, is_archive, open_archive
from vaekit.data.decoding.files import UnusableError
from vaekit.data.decoding.formats import HEAD, IMAGE_SUFFIXES, OTHER_SUFFIXES, has_suffix, sniff
from vaekit.data.sources.arrays import file_key, status_key
from vaekit.data.sources.conditions import Conditions, conditions_of_files
from vaekit.data.sources.layout import NO_CLASS, Layout, read_layout
from vaekit.data.sources.listing import LINKED_FOLDER, LINKED_OUTSIDE, Listing, list_folder, passed_over
from vaekit.data.sources.table_files import find_table, images_not_named, is_table, tables_in
from vaekit.data.sources.tables import MatchedTable, labels_of_files, match_table, splits_of_files
from vaekit.data.splits import TRAIN
from vaekit.errors import UserError, setting
from vaekit.utils.files import natural_sort_key

EXCLUDED = "excluded"
EXAMPLES = 3
"""Files that a note lists, at most."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files that are to be decoded, in the natural order of their paths."""

    root: Path
    """The folder or archive that holds them."""
    paths: list[str]
    """Relative to `root`, separated by "/"."""
    classes: list[str]
    """The class of each file, or NO_CLASS."""
    splits: list[int]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason) of the images that are not opened."""
    other_files: int = 0
    """Number of files that are not images."""
    notes: list[str] = field(default_factory=list)
    """What the paths were taken for."""
    conditions: Conditions | None = None
    """The conditions of each file, instead of classes."""


@dataclass(frozen=True)
class FilesSource:
    """A data set of image files, which `read` lists, given a folder for temporary files."""

    name: str
    key: tuple[str, ...]
    read: Callable[[Path], ImageFiles]


def folder_source(folder: Path, settings: DataConfig, known_classes: Sequence[str] = ()) -> FilesSource:
    """The image files in a folder and its subfolders.

    Raises:
        UserError: there are none.
        OSError: the folder cannot be read.
    """
    listing = list_folder(folder, settings.links)
    root = folder.resolve()
    files = _image_files(root, listing, settings, known_classes, root)
    if not files.paths or (len(files.paths) == 1 and files.paths[0].lower().endswith(".npy")):
        raise _no_images(folder, files)
    key = _table_key(settings, root)
    key += [f"{path}|{status_key(listing.files[path])}" for path in files.paths]
    key += [f"{path}|{reason}" for path, reason in files.skipped]
    key += files.notes
    return FilesSource(root.name or "images", (str(root), *key), lambda _: files)


def archive_source(path: Path, settings: DataConfig, known_classes: Sequence[str] = ()) -> FilesSource:
    """The image files in a .zip or .tar file, which is read in place."""

    def read(folder: Path) -> ImageFiles:
        archive, root = open_archive(path, folder)
        with archive:
            listing = _list_archive(archive)
        files = _image_files(root, listing, settings, known_classes, path.parent, archive=True)
        if not files.paths:
            raise _no_images(path, files)
        return files

    key = (*file_key(path), *_table_key(settings, path.parent))
    return FilesSource(re.sub(r"(\.tar)?\.\w+$", "", path.name), key, read)


def _table_key(settings: DataConfig, folder: Path) -> list[str]:
    parts = find_table(settings.labels, folder).parts.values() if settings.labels else ()
    return list(file_key(*(path for path in parts if path.is_file())))


def _list_archive(archive: Archive) -> Listing:
    listing = Listing()
    for path, reason in archive.members():
        if any(passed_over(part) for part in path.split("/") if part not in (".", "..")):
            continue
        named_image = has_suffix(path, IMAGE_SUFFIXES)
        if reason and named_image:
            listing.skipped[path] = reason
        elif named_image or (
            not has_suffix(path, OTHER_SUFFIXES) and not reason and _is_image(archive, path)
        ):
            listing.files[path] = None
        else:
            listing.add_other(path)
            listing.tables += [PurePosixPath(path).name] if is_table(path) else []
    return listing


def _is_image(archive: Archive, path: str) -> bool:
    try:
        with archive.open(path) as file:
            return sniff(file.read(HEAD)) is not None
    except UnusableError:
        return False


def _image_files(
    root: Path,
    listing: Listing,
    settings: DataConfig,
    known_classes: Sequence[str],
    tables: Path,
    archive: bool = False,
) -> ImageFiles:
    """Apply the settings, and what the paths say, to the files of a listing. A table of labels may be given
    by its name in the folder `tables`."""
    skipped, paths = dict(listing.skipped), []
    include, exclude = _patterns(settings.include), _patterns(settings.exclude)
    for path in sorted(listing.files, key=natural_sort_key):
        if (include and not _matches(path, include)) or _matches(path, exclude):
            skipped[path] = EXCLUDED
        else:
            paths.append(path)
    unnamed = {} if include or archive else images_not_named(root, paths)
    skipped |= unnamed
    paths = [path for path in paths if path not in unnamed]
    layout = read_layout(paths, settings.split_folders, bool(include), known_classes, archive)
    skipped |= {paths[row]: reason for row, reason in layout.left_out.items()}
    used = [row for row in range(len(paths)) if row not in layout.left_out]
    conditions = None
    if settings.labels and used:
        table = match_table(find_table(settings.labels, tables), [paths[row] for row in used])
        if settings.condition:
            if set(layout.classes) != {NO_CLASS}:
                layout.notes.append(f"Folders are not classes where {setting('condition')} is given.")
            layout.classes = [NO_CLASS] * len(paths)
            conditions, notes = conditions_of_files(table, settings.condition)
        else:
            classes, notes = labels_of_files(table, settings.label_column)
            for row, label in zip(used, classes, strict=True):
                layout.classes[row] = label
        layout.notes += [*notes, *_splits_by_table(table, layout, used, settings)]
    elif len(set(layout.classes)) <= 1:
        layout.notes += _unread_tables(listing.tables if archive else tables_in(tables), archive)
    layout.notes += _unnamed_note(unnamed)
    for pattern in exclude:
        if not any(_matches(path, [pattern]) for path in listing.files):
            layout.notes.append(f"{setting('exclude', pattern)} matches no file.")
    return ImageFiles(
        root,
        [paths[row] for row in used],
        [layout.classes[row] for row in used],
        [layout.splits[row] for row in used],
        sorted(skipped.items()),
        listing.other_files,
        [*listing.notes, *layout.notes, *_link_notes(listing), *_archive_notes(listing)],
        conditions,
    )


def _splits_by_table(
    table: MatchedTable, layout: Layout, used: Sequence[int], settings: DataConfig
) -> list[str]:
    """Take the splits from a column of a table, unless folders have them or it is a column of labels."""
    if settings.split_folders == "never" or set(layout.splits) != {TRAIN}:
        return []
    chosen = [*(settings.condition or "").split(","), settings.label_column or ""]
    splits, notes = splits_of_files(table, chosen)
    for row, split in zip(used, splits, strict=False):
        layout.splits[row] = split
    return notes


def _unnamed_note(unnamed: Mapping[str, str]) -> list[str]:
    """That images are left out by a table that names the others."""
    if not unnamed:
        return []
    path, reason = next(iter(unnamed.items()))
    text = "1 image is" if len(unnamed) == 1 else f"{len(unnamed):,} images are"
    return [f"{text} left out, e.g. {path}: {reason}. To read all: {setting('include', '*')}."]


def _unread_tables(names: Sequence[str], archive: bool) -> list[str]:
    """That there are tables, where there are no classes."""
    if not names:
        return []
    text = f"{', '.join(names[:EXAMPLES])}{', ...' if len(names) > EXAMPLES else ''}"
    text += " is not read" if len(names) == 1 else " are not read"
    if archive:
        return [f"{text}. For classes from a table, extract it, and give its path by {setting('labels')}."]
    return [
        f"{text}. To take classes from {'it' if len(names) == 1 else 'one'}: {setting('labels', names[0])}."
    ]


def _patterns(text: str | None) -> list[str]:
    return [pattern.strip() for pattern in (text or "").split(",") if pattern.strip()]


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path matches a pattern; the name of a folder matches all that is in it."""
    return any(fnmatch(path, pattern) or fnmatch(path, pattern.rstrip("/") + "/*") for pattern in patterns)


def _link_notes(listing: Listing) -> list[str]:
    """What is said of links that are not followed."""
    folders = sorted(path for path, reason in listing.skipped.items() if reason == LINKED_FOLDER)
    files = sum(reason == LINKED_OUTSIDE for reason in listing.skipped.values())
    if not folders and not files:
        return []
    names = ", ".join(f"{name}/" for name in folders[:3]) + (", ..." if len(folders) > 3 else "")
    parts = [
        f"links to folders ({names})" if folders else "",
        ("1 link to a file elsewhere" if files == 1 else f"{files:,} links to files elsewhere")
        if files
        else "",
    ]
    return [f"Not read: {' and '.join(filter(None, parts))}. To read them: {setting('links', 'follow')}."]


def _archive_notes(listing: Listing) -> list[str]:
    """That there are archives among the files, which may hold images."""
    names = listing.archives
    if not names:
        return []
    text = f"{', '.join(names[:EXAMPLES])}{', ...' if len(names) > EXAMPLES else ''}"
    verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
    return [f"{text} {verb} not read. To read the images in {them}, unpack {them}."]


def _no_images(source: Path, files: ImageFiles) -> UserError:
    """What to say of a folder or archive without images: what is there instead, and what to do."""
    reasons = Counter(reason for _, reason in files.skipped)
    links = reasons[LINKED_FOLDER] + reasons[LINKED_OUTSIDE]
    if links and links == len(files.skipped):
        message = f"'{source}' contains only links, which lead out of it."
        return UserError(message, f"To read what they lead to, add {setting('links', 'follow')}.")
    if source.is_dir():
        inside = sorted(source.iterdir())
        if arrays := [path for path in inside if path.suffix.lower() in (".npz", ".npy")]:
            return UserError(
                f"'{source}' contains no image files, but {arrays[0].name}.", f"Give '{arrays[0]}'."
            )
        if archives := [path for path in inside if is_archive(path)]:
            hint = f"Give '{archives[0]}', or unpack it."
            return UserError(f"'{source}' contains no image files, but {archives[0].name}.", hint)
    skip_note = ""
    if reasons:
        path, reason = files.skipped[0]
        skip_note = f" ({len(files.skipped):,} skipped, e.g. {path}: {reason})"
    hint = "Supported formats are JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, AVIF and JPEG 2000."
    return UserError(f"'{source}' contains no images{skip_note}.", hint)
