"""Splits, classes, masks and thumbnails in the paths of image files, without opening any of them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vaekit.data.sources.masks import FILLERS, Notes, find_masks, find_thumbnails, words_of
from vaekit.data.splits import SPLITS, TEST, TRAIN, VALIDATION
from vaekit.errors import setting

SplitFolders = Literal["auto", "always", "never"]
NO_CLASS = "(none)"
"""Class of the images outside the class folders."""
BESIDE_SPLITS = "outside the folders of the splits"
OUTSIDE = "outside the folder of the images"
STRAY_SHARE, FEW_STRAY, SHARE_OF_FEW = 0.01, 3, 0.1
"""Files that may lie outside of the only folder without making it a class: this share of all, or up to so
many that are no more than the last share."""

MAX_LISTED = 4
"""Folders that a note lists, at most."""

SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
    "publictest": VALIDATION,  # as FER2013 names them
    "privatetest": TEST,
}


@dataclass
class Layout:
    """What the paths of image files say."""

    splits: list[int]
    """The split of each file: TRAIN, VALIDATION or TEST."""
    classes: list[str]
    """The class of each file, or NO_CLASS."""
    left_out: dict[int, str] = field(default_factory=dict)
    """File number -> the reason why it is left out."""
    notes: list[str] = field(default_factory=list)
    """What the paths were taken for, where they could mean something else: a sentence each."""


def read_layout(
    paths: Sequence[str],
    split_folders: SplitFolders = "auto",
    keep_masks: bool = False,
    known_classes: Iterable[str] = (),
    archive: bool = False,
) -> Layout:
    """Find the split and the class of every file in its path.

    Args:
        paths: paths relative to the data set's folder, separated by "/".
        split_folders: whether folders named train, test and so on are splits; "auto" where all folders beside
            them are, or both a training split and another one.
        keep_masks: treat files with the names of masks as images.
        known_classes: classes of a trained model, whose folders are never looked through.
        archive: look through an outer folder even if it holds nothing but files.
    """
    layout = Layout([TRAIN] * len(paths), [NO_CLASS] * len(paths))
    doubts: Notes = []
    if not keep_masks:
        for find in (find_masks, find_thumbnails):
            left_out, notes = find(paths)
            layout.left_out |= left_out
            doubts += notes
    parts = {row: path.split("/") for row, path in enumerate(paths) if row not in layout.left_out}
    outer, stray = _outer_folders(parts, split_folders, frozenset(known_classes), archive)
    layout.left_out |= dict.fromkeys(stray, OUTSIDE)
    if outer:
        name = "/".join(outer)
        layout.notes.append(
            f"{'The' if stray else 'All'} images are in {name}/, which is read as the folder of the images."
        )
        if stray:
            files = "1 file" if len(stray) == 1 else f"{len(stray)} files"
            layout.notes.append(
                f"{files} outside of {name}/ left out, e.g. {paths[stray[0]]}. To read them too, move them "
                "into it."
            )
    parts = {row: path[len(outer) :] for row, path in parts.items() if row not in layout.left_out}
    rest = _top_splits(parts, split_folders, layout)
    if rest is None:
        rest = _splits_of_classes(parts, split_folders, layout) or parts
    for row, path in rest.items():
        layout.classes[row] = path[0] if len(path) > 1 else NO_CLASS
    texts = [text for text, rows in doubts if not rows or not layout.left_out.keys() >= set(rows)]
    layout.notes = [*texts, *layout.notes, *_inner_folders_note(rest.values())]
    return layout


def split_of(name: str) -> int | None:
    """The split that a folder is named after, as "Validation", "val2017" and "test_set" are; or None."""
    words = [word for word in re.findall("[a-z]+", name.lower()) if word not in FILLERS]
    return SPLIT_OF_WORD.get(words[0].removesuffix("set")) if len(words) == 1 else None


def _inner_folders_note(paths: Iterable[list[str]]) -> list[str]:
    """That folders inside of classes are read together, where half of the classes have several with names."""
    inner: dict[str, set[str]] = {}
    for path in paths:
        if len(path) > 1:
            inner.setdefault(path[0], set()).add("/".join(path[1:-1]))
    named = {name: {f for f in folders if re.search("[^\\W\\d_]", f)} for name, folders in inner.items()}
    several = sorted(name for name, folders in named.items() if len(folders) > 1)
    if not several or 2 * len(several) < len(inner):
        return []
    name = several[0]
    folders = _listed([f"{name}/{folder}" for folder in sorted(named[name])][:MAX_LISTED])
    text = f"Classes are the first folders, {_listed(sorted(inner))}: {folders} are read together."
    return [f"{text} To read those inside as classes, give one folder alone, such as {name}/."]


# --- Outer folders ------------------------------------------------------------------------------------------


def _outer_folders(
    parts: dict[int, list[str]], split_folders: SplitFolders, known: frozenset[str], archive: bool
) -> tuple[list[str], list[int]]:
    """The folders, one in the other, that hold the images and are neither a class nor a split; and the files
    outside of them.

    A single folder of files is a class, as of new images to encode, unless it is named "images" or the like.
    A few files may lie outside where the folder has folders itself.
    """
    outer: list[str] = []
    stray: list[int] = []
    rest = parts
    while rest:
        depth = len(outer)
        outside = [row for row, path in rest.items() if len(path) == depth + 1]
        inside = {row: path for row, path in rest.items() if len(path) > depth + 1}
        names = {path[depth] for path in inside.values()}
        share = SHARE_OF_FEW if len(outside) <= FEW_STRAY else STRAY_SHARE
        if len(names) != 1 or len(outside) > share * len(rest):
            break
        name = next(iter(names))
        has_folders = len({path[depth + 1] for path in inside.values() if len(path) > depth + 2}) > 1
        if outside and not has_folders:
            break
        is_class = all(len(path) == depth + 2 for path in inside.values())
        is_class = is_class and not (archive or _says_nothing(name))
        if name in known or is_class or (split_folders != "never" and split_of(name) is not None):
            break
        outer.append(name)
        stray += outside
        rest = inside
    return outer, stray


def _says_nothing(name: str) -> bool:
    words = re.findall("[a-z]+", name.lower())
    return bool(words) and FILLERS.issuperset(words)


# --- Splits -------------------------------------------------------------------------------------------------


def _top_splits(
    parts: dict[int, list[str]], split_folders: SplitFolders, layout: Layout
) -> dict[int, list[str]] | None:
    """Assign files to splits by their first folder, and return the rest of their paths; None if none is."""
    if split_folders == "never":
        return None
    counts = Counter(path[0] for path in parts.values() if len(path) > 1)
    splits = {name: split for name in counts if (split := split_of(name)) is not None}
    if not splits:
        layout.notes += _split_like_note(sorted(counts))
        return None
    present = set(splits.values())
    both = TRAIN in present and len(present) > 1
    if split_folders == "auto" and not both and len(splits) < len(counts):
        names = _listed(sorted(splits))
        others = _listed(sorted(set(counts) - set(splits)))
        verb = "is a class" if len(splits) == 1 else "are classes"
        layout.notes.append(
            f"{names} {verb} here, like {others}. To make it a split: {setting('split_folders', 'always')}."
        )
        return None
    rest = {}
    for row, path in parts.items():
        if len(path) > 1 and path[0] in splits:
            layout.splits[row] = splits[path[0]]
            rest[row] = path[1:]
        elif both:
            layout.left_out[row] = BESIDE_SPLITS
        else:
            rest[row] = path
    layout.notes.append(_splits_note(splits, counts))
    if outside := sum(reason == BESIDE_SPLITS for reason in layout.left_out.values()):
        images = "1 image" if outside == 1 else f"{outside:,} images"
        layout.notes.append(
            f"{images} outside these folders left out. To read all folders as classes: "
            f"{setting('split_folders', 'never')}."
        )
    return rest


def _split_like_note(names: Sequence[str]) -> list[str]:
    """That folders such as trainA and testA are classes, since they are not named like splits alone."""
    like = [name for name in names if not SPLIT_OF_WORD.keys().isdisjoint(words_of(name))]
    train = [name for name in like if "train" in words_of(name)]
    if not train or len(train) == len(like):
        return []
    text = f"{_listed(like)} are classes here, though their names tell of splits."
    return [f"{text} To make them splits, rename them to {SPLITS[TRAIN]}/ and {SPLITS[TEST]}/."]


def _splits_note(splits: dict[str, int], counts: Counter[str]) -> str:
    texts = []
    for number, split in enumerate(SPLITS):
        folders = sorted(name for name, where in splits.items() if where == number)
        if folders:
            images = sum(counts[name] for name in folders)
            texts.append(f"{split} from {_listed(folders)} ({images:,} image{'' if images == 1 else 's'})")
    return f"Splits by folder: {', '.join(texts)}."


def _splits_of_classes(
    parts: dict[int, list[str]], split_folders: SplitFolders, layout: Layout
) -> dict[int, list[str]] | None:
    """Assign files to splits by their second folder, as in cat/train and cat/test; None if none is."""
    if split_folders == "never":
        return None
    splits_of: dict[str, set[int]] = {}
    for path in parts.values():
        if len(path) > 2 and (split := split_of(path[1])) is not None:
            splits_of.setdefault(path[0], set()).add(split)
    held_out = [name for name, splits in splits_of.items() if TRAIN in splits and len(splits) > 1]
    if not held_out and not (splits_of and split_folders == "always"):
        return None
    rest = {}
    for row, path in parts.items():
        split = split_of(path[1]) if len(path) > 2 else None
        layout.splits[row] = TRAIN if split is None else split
        rest[row] = [path[0], *path[2:]] if split is not None else path
    counts = Counter(layout.splits[row] for row in rest)
    example = sorted(held_out or splits_of)[0]
    sizes = ", ".join(f"{counts[number]:,} {split}" for number, split in enumerate(SPLITS) if counts[number])
    layout.notes.append(f"Splits by the folders in each class, such as {example}/train: {sizes} images.")
    return rest


def _listed(folders: Sequence[str]) -> str:
    names = [f"{name}/" for name in folders]
    if len(names) > MAX_LISTED:
        return ", ".join(names[:MAX_LISTED]) + ", ..."
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
