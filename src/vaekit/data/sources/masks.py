"""Masks and annotations of other images, by the names of files and folders."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from vaekit.errors import setting


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


MASK = "named like a mask"
"""Reason for which masks are left out."""
FILLERS = _set_of("set data dataset images image imgs img pictures photos pics files split folder seg")
"""Words that say nothing beside the name of a split, as in train_images, or of a mask."""
MASK_WORDS = _set_of(
    "mask masks trimap trimaps annotation annotations annot segmentation segmentations "
    "segmentationclass segmentationobject segmap segmaps seg gt groundtruth label labels "
    "labelids"
)
"""Words in the names of masks and of their folders; also "ground" followed by "truth"."""
MASK_HINT = re.compile("mask|trimap|annot|seg|gt|truth|label", re.IGNORECASE)
"""What at least one of `MASK_WORDS` holds, for a fast look at the many paths without any."""
MASKS_PAIRED = 0.5
"""Share of the files with a mask's name that must belong to another image, by the rest of their names."""


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


def find_masks(paths: Sequence[str]) -> tuple[dict[int, str], list[str]]:
    """The files that are masks of others, by their names, with the reason to leave them out; and notes."""
    left_out: dict[int, str] = {}
    notes: list[str] = []
    masks = [row for row, path in enumerate(paths) if _is_mask(path)]
    if not masks or len(masks) == len(paths):
        return left_out, notes
    named = set(masks)
    keys = {key for row, path in enumerate(paths) if row not in named for key in _image_keys(path)}
    groups: dict[str, list[int]] = {}
    for row in masks:
        groups.setdefault(_mask_group(paths[row]), []).append(row)
    for group, rows in groups.items():
        paired = sum(_belongs(paths[row], keys) for row in rows)
        images = "1 file" if len(rows) == 1 else f"{len(rows):,} files"
        if paired < MASKS_PAIRED * len(rows):
            notes.append(
                f"{images} in {group} may be masks or annotations, by name, and are read as images. "
                f"To leave them out: {setting('exclude', group + '**' if group.endswith('/') else group)}."
            )
            continue
        left_out |= dict.fromkeys(rows, MASK)
        masks_text = "a mask of another image" if len(rows) == 1 else "masks of other images"
        notes.append(
            f"{images} left out as {masks_text}, by name: {group}. "
            f"To read them too: {setting('include', '*')}."
        )
    return left_out, notes


def _mask_group(path: str) -> str:
    """The outermost folder that is named after masks, as "annotations/", or a pattern of the file's name."""
    *folders, name = path.split("/")
    for depth, folder in enumerate(folders):
        if MASK_WORDS.intersection(_words(folder)):
            return "/".join(folders[: depth + 1]) + "/"
    word = next(word for word in _words(PurePosixPath(name).stem) if word in MASK_WORDS)
    return f"*{word}*"
