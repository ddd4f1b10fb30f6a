"""Masks, annotations and thumbnails of other images, by the names of files and folders."""

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
THUMBNAIL = "named like a thumbnail"
"""Reason for which thumbnails are left out."""
THUMBNAIL_WORDS = _set_of("thumb thumbs thumbnail thumbnails")
"""Words in the names of thumbnails and of their folders."""
THUMBNAIL_HINT = re.compile("thumb", re.IGNORECASE)
"""What all of `THUMBNAIL_WORDS` hold, likewise."""
WHAT = {
    MASK: ("masks or annotations", "a mask of another image", "masks of other images"),
    THUMBNAIL: ("thumbnails", "a thumbnail of another image", "thumbnails of other images"),
}
"""By reason, what such files are called."""
PAIRED = 0.5
"""Share of the files with the name of a mask or thumbnail that must belong to another image, by the rest of
their names."""


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
    masks = [row for row, path in enumerate(paths) if _is_mask(path)]
    if not masks or len(masks) == len(paths):
        return {}, []
    named = set(masks)
    keys = {key for row, path in enumerate(paths) if row not in named for key in _image_keys(path)}
    paired = [row for row in masks if _belongs(paths[row], keys)]
    return _left_out(paths, masks, set(paired), MASK_WORDS, MASK)


def find_thumbnails(paths: Sequence[str]) -> tuple[dict[int, str], list[str]]:
    """The files that are thumbnails of others, by their names, likewise.

    A thumbnail has the path of its image but for the word: a/thumbs/1.png and a/1_thumb.png belong to
    a/1.png, and thumbs/1.png to images/1.png. Hence a class of thumbs beside one of palms is none.
    """
    if not any(map(THUMBNAIL_HINT.search, paths)):
        return {}, []
    parts = [[_words(part) for part in (*path.split("/")[:-1], PurePosixPath(path).stem)] for path in paths]
    thumbnails = [row for row, names in enumerate(parts) if any(map(THUMBNAIL_WORDS.intersection, names))]
    if not thumbnails or len(thumbnails) == len(paths):
        return {}, []
    named = set(thumbnails)
    images = {_without(names, FILLERS) for row, names in enumerate(parts) if row not in named}
    without = THUMBNAIL_WORDS | FILLERS
    paired = {row for row in thumbnails if _without(parts[row], without) in images}
    return _left_out(paths, thumbnails, paired, THUMBNAIL_WORDS, THUMBNAIL)


def _without(names: Sequence[Sequence[str]], words: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """The words of a path that are not among `words`, part by part, without parts that have no other."""
    *folders, name = (tuple(word for word in part if word not in words) for part in names)
    return (*filter(None, folders), name)


def _left_out(
    paths: Sequence[str], rows: Sequence[int], paired: set[int], words: frozenset[str], reason: str
) -> tuple[dict[int, str], list[str]]:
    """Of files whose names have one of `words`: those of each folder or pattern are left out for `reason`
    where most belong to another image."""
    what, one, several = WHAT[reason]
    left_out: dict[int, str] = {}
    notes: list[str] = []
    groups: dict[str, list[int]] = {}
    for row in rows:
        groups.setdefault(_group(paths[row], words), []).append(row)
    for group, members in groups.items():
        images = "1 file" if len(members) == 1 else f"{len(members):,} files"
        if sum(row in paired for row in members) < PAIRED * len(members):
            notes.append(
                f"{images} in {group} may be {what}, by name, and are read as images. "
                f"To leave them out: {setting('exclude', group + '**' if group.endswith('/') else group)}."
            )
            continue
        left_out |= dict.fromkeys(members, reason)
        notes.append(
            f"{images} left out as {one if len(members) == 1 else several}, by name: {group}. "
            f"To read them too: {setting('include', '*')}."
        )
    return left_out, notes


def _group(path: str, words: frozenset[str]) -> str:
    """The outermost folder with one of `words`, as "annotations/", or a pattern of the file's name."""
    *folders, name = path.split("/")
    for depth, folder in enumerate(folders):
        if words.intersection(_words(folder)):
            return "/".join(folders[: depth + 1]) + "/"
    return f"*{next(word for word in _words(PurePosixPath(name).stem) if word in words)}*"
