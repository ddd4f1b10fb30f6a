"""Splits, classes and masks in the paths of image files, without opening any of them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from vaekit.data.splits import SPLITS, TEST, TRAIN, VALIDATION
from vaekit.errors import setting

SplitFolders = Literal["auto", "always", "never"]
NO_CLASS = "(none)"
"""Class of the images outside the class folders."""
MASK = "named like a mask"
"""Reason for which masks are left out."""
BESIDE_SPLITS = "outside the folders of the splits"

MAX_LISTED = 4
"""Folders that a note lists, at most."""

SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
FILLERS = frozenset(
    [
        "set",
        "data",
        "dataset",
        "images",
        "image",
        "imgs",
        "img",
        "pictures",
        "photos",
        "pics",
        "files",
        "split",
        "folder",
        "seg",
    ]
)
"""Words that say nothing beside the name of a split, as in train_images, or of a mask."""
MASK_WORDS = frozenset(
    [
        "mask",
        "masks",
        "trimap",
        "trimaps",
        "annotation",
        "annotations",
        "annot",
        "segmentation",
        "segmentations",
        "segmentationclass",
        "segmentationobject",
        "segmap",
        "segmaps",
        "seg",
        "gt",
        "groundtruth",
        "label",
        "labels",
        "labelids",
    ]
)
"""Words in the names of masks and of their folders; also "ground" followed by "truth"."""
MASK_HINT = re.compile("mask|trimap|annot|seg|gt|truth|label", re.IGNORECASE)
"""What at least one of `MASK_WORDS` holds, for a fast look at the many paths without any."""
MASKS_PAIRED = 0.5
"""Share of the files with a mask's name that must belong to another image, by the rest of their names."""


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
    if not keep_masks:
        _leave_out_masks(paths, layout)
    parts = {row: path.split("/") for row, path in enumerate(paths) if row not in layout.left_out}
    depth = _outer_folders(parts.values(), split_folders, frozenset(known_classes), archive)
    if depth:
        outer = "/".join(next(iter(parts.values()))[:depth])
        layout.notes.append(f"All images are in {outer}/, which is read as the folder of the images.")
    parts = {row: path[depth:] for row, path in parts.items()}
    rest = _top_splits(parts, split_folders, layout)
    if rest is None:
        rest = _splits_of_classes(parts, split_folders, layout) or parts
    for row, path in rest.items():
        layout.classes[row] = path[0] if len(path) > 1 else NO_CLASS
    return layout


def split_of(name: str) -> int | None:
    """The split that a folder is named after, as "Validation", "val2017" and "test_set" are; or None."""
    words = [word for word in re.findall("[a-z]+", name.lower()) if word not in FILLERS]
    return SPLIT_OF_WORD.get(words[0].removesuffix("set")) if len(words) == 1 else None


# --- Outer folders ------------------------------------------------------------------------------------------


def _outer_folders(
    parts: Iterable[list[str]], split_folders: SplitFolders, known: frozenset[str], archive: bool
) -> int:
    """How many folders, one in the other, hold all images and are neither a class nor a split.

    A single folder of files is a class, as of new images to encode, unless it is named "images" or the like.
    """
    rest = list(parts)
    depth = 0
    while rest and all(len(path) > depth + 1 for path in rest):
        names = {path[depth] for path in rest}
        name = next(iter(names))
        is_class = all(len(path) == depth + 2 for path in rest) and not (archive or _says_nothing(name))
        if len(names) > 1 or name in known or is_class:
            break
        if split_folders != "never" and split_of(name) is not None:
            break
        depth += 1
    return depth


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


# --- Masks --------------------------------------------------------------------------------------------------


def _words(name: str) -> list[str]:
    """The words of a name in lower case, with "ground truth" as one: "Cat2_maskGT" is cat, 2, mask, gt."""
    spaced = re.sub("ground[^a-z]?truth", "groundtruth", name, flags=re.IGNORECASE)
    return [word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^\\W\\d_]+", spaced)]


def _is_mask(path: str) -> bool:
    if not MASK_HINT.search(path):
        return False
    *folders, name = path.split("/")
    names = [*folders, PurePosixPath(name).stem]
    return any(MASK_WORDS.intersection(_words(part)) for part in names)


def _image_keys(path: str) -> set[tuple[str, ...]]:
    """What a mask of an image may have in its name: all words of the image's name, or the first ones."""
    words = _words(PurePosixPath(path).stem)
    return {_telling(words), *(tuple(words[:count]) for count in range(1, len(words) + 1))}


def _belongs(path: str, keys: set[tuple[str, ...]]) -> bool:
    """Whether a mask has in its name what an image has: before the word for masks, or around it."""
    words = _words(PurePosixPath(path).stem)
    place = next((at for at, word in enumerate(words) if word in MASK_WORDS), len(words))
    return _telling(words) in keys or (place > 0 and tuple(words[:place]) in keys)


def _telling(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in MASK_WORDS and word not in FILLERS)


def _leave_out_masks(paths: Sequence[str], layout: Layout) -> None:
    """Leave out the files that are masks of others, by their names."""
    masks = [row for row, path in enumerate(paths) if _is_mask(path)]
    if not masks or len(masks) == len(paths):
        return
    named = set(masks)
    keys = {key for row, path in enumerate(paths) if row not in named for key in _image_keys(path)}
    groups: dict[str, list[int]] = {}
    for row in masks:
        groups.setdefault(_mask_group(paths[row]), []).append(row)
    for group, rows in groups.items():
        paired = sum(_belongs(paths[row], keys) for row in rows)
        images = "1 file" if len(rows) == 1 else f"{len(rows):,} files"
        if paired < MASKS_PAIRED * len(rows):
            layout.notes.append(
                f"{images} in {group} may be masks or annotations, by name, and are read as images. "
                f"To leave them out: {setting('exclude', group + '**' if group.endswith('/') else group)}."
            )
            continue
        layout.left_out |= dict.fromkeys(rows, MASK)
        layout.notes.append(
            f"{images} left out as masks of other images, by name: {group}. "
            f"To read them too: {setting('include', '*')}."
        )


def _mask_group(path: str) -> str:
    """The outermost folder that is named after masks, as "annotations/", or a pattern of the file's name."""
    *folders, name = path.split("/")
    for depth, folder in enumerate(folders):
        if MASK_WORDS.intersection(_words(folder)):
            return "/".join(folders[: depth + 1]) + "/"
    word = next(word for word in _words(PurePosixPath(name).stem) if word in MASK_WORDS)
    return f"*{word}*"
