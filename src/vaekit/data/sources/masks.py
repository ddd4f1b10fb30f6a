"""Masks, annotations and thumbnails of other images, by the names of files and folders."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePosixPath

from vaekit.errors import setting

Notes = list[tuple[str, list[int]]]
"""Sentences, each with the files that it says are read."""


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
NEUTRAL = FILLERS | _set_of(
    "train training trainval val valid validation test testing dev eval class classes object objects "
    "instance instances fine coarse binary color colored colour coloured rgb png jpg jpeg tif tiff bmp ids "
    "map maps manual semantic panoptic pixel all original of and the"
)
"""Words that a folder of masks may have beside that of masks."""
FACES = re.compile(r"(^|[^a-z])(no|non|un|without|with)[^a-z]?mask", re.IGNORECASE)
"""What folders of faces with and without masks are named."""
MAX_GROUPS = 3
"""Folders of one name that notes name one by one, at most."""
MASK_HINT = re.compile("mask|trimap|annot|seg|gt|truth|label", re.IGNORECASE)
"""What at least one of `MASK_WORDS` holds, for a fast look at the many paths without any."""
THUMBNAIL = "named like a thumbnail"
"""Reason for which thumbnails are left out."""
THUMBNAIL_WORDS = _set_of("thumb thumbs thumbnail thumbnails tn")
"""Words in the names of thumbnails and of their folders."""
SIZE_IN_NAME = re.compile(r"-\d+x\d+(?=\.\w+$)")
"""The size at the end of the name of a thumbnail that WordPress makes."""
THUMBNAIL_HINT = re.compile(r"thumb|\btn_|-\d+x\d+\.", re.IGNORECASE)
"""What at least one of the names of thumbnails holds, likewise."""
WHAT = {
    MASK: ("masks or annotations", "a mask of another image", "masks of other images"),
    THUMBNAIL: ("thumbnails", "a thumbnail of another image", "thumbnails of other images"),
}
"""By reason, what such files are called."""
PAIRED = 0.5
"""Share of the files with the name of a mask or thumbnail that must belong to another image, by the rest of
their names."""


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, with "ground truth" as one: "Cat2_maskGT" is cat, 2, mask, gt."""
    spaced = re.sub("ground[^a-z]?truth", "groundtruth", name, flags=re.IGNORECASE)
    return [word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^\\W\\d_]+", spaced)]


def _is_mask(path: str) -> bool:
    if not MASK_HINT.search(path):
        return False
    *folders, name = path.split("/")
    names = [*folders, PurePosixPath(name).stem]
    return any(MASK_WORDS.intersection(words_of(part)) for part in names)


def _image_keys(path: str) -> set[tuple[str, ...]]:
    """What a mask of an image may have in its name: all words of the image's name, or the first ones."""
    words = words_of(PurePosixPath(path).stem)
    return {_telling(words), *(tuple(words[:count]) for count in range(1, len(words) + 1))}


def _belongs(path: str, keys: set[tuple[str, ...]]) -> bool:
    """Whether a mask has in its name what an image has: before the word for masks, or around it."""
    words = words_of(PurePosixPath(path).stem)
    place = next((at for at, word in enumerate(words) if word in MASK_WORDS), len(words))
    return _telling(words) in keys or (place > 0 and tuple(words[:place]) in keys)


def _telling(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in MASK_WORDS and word not in FILLERS)


def find_masks(paths: Sequence[str]) -> tuple[dict[int, str], Notes]:
    """The files that are masks of others, by their names, with the reason to leave them out; and notes.

    Folders that hold all files say nothing. A folder with other words, as "Ford GT", has no masks unless
    images have these words too; nor has one of faces with masks, beside one of faces without.
    """
    if not any(map(MASK_HINT.search, paths)):
        return {}, []
    start = _common_start(paths)
    short = [path[start:] for path in paths]
    masks = [row for row, path in enumerate(short) if _is_mask(path)]
    if not masks or len(masks) == len(paths):
        return {}, []
    named = set(masks)
    images = [path for row, path in enumerate(short) if row not in named]
    keys = {key for path in images for key in _image_keys(path)}
    known = NEUTRAL | {word for path in images for part in _parts_of(path) for word in part}
    faces = any(FACES.search(path) for path in short)
    paired = {
        row
        for row in masks
        if _belongs(short[row], keys) and not (faces and "mask" in short[row].lower())
        if all(word in known or len(word) == 1 for word in _folder_words(short[row]))
    }
    return _left_out(paths, start, masks, paired, MASK_WORDS, MASK)


def find_thumbnails(paths: Sequence[str]) -> tuple[dict[int, str], Notes]:
    """The files that are thumbnails of others, by their names, likewise.

    A thumbnail has the path of its image but for the word: a/thumbs/1.png and a/1_thumb.png belong to
    a/1.png, and thumbs/1.png to images/1.png. Hence a class of thumbs beside one of palms is none.
    """
    if not any(map(THUMBNAIL_HINT.search, paths)):
        return {}, []
    start = _common_start(paths)
    parts = [_parts_of(SIZE_IN_NAME.sub(" thumb", path[start:])) for path in paths]
    thumbnails = [row for row, names in enumerate(parts) if any(map(THUMBNAIL_WORDS.intersection, names))]
    if not thumbnails or len(thumbnails) == len(paths):
        return {}, []
    named = set(thumbnails)
    images = {_without(names, FILLERS) for row, names in enumerate(parts) if row not in named}
    without = THUMBNAIL_WORDS | FILLERS
    paired = {row for row in thumbnails if _without(parts[row], without) in images}
    return _left_out(paths, start, thumbnails, paired, THUMBNAIL_WORDS, THUMBNAIL)


def _common_start(paths: Sequence[str]) -> int:
    """The length of the folders that all files are in."""
    first, last = (path.split("/")[:-1] for path in (min(paths), max(paths)))
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return sum(len(folder) + 1 for folder, _ in shared)


def _parts_of(path: str) -> list[list[str]]:
    """The words of each folder and of the name of a file."""
    *folders, name = path.split("/")
    return [words_of(part) for part in (*folders, PurePosixPath(name).stem)]


def _folder_words(path: str) -> list[str]:
    """The other words of folders that are named after masks."""
    folders = [part for part in _parts_of(path)[:-1] if MASK_WORDS.intersection(part)]
    return [word for part in folders for word in part if word not in MASK_WORDS]


def _without(names: Sequence[Sequence[str]], words: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """The words of a path that are not among `words`, part by part, without parts that have no other."""
    *folders, name = (tuple(word for word in part if word not in words) for part in names)
    return (*filter(None, folders), name)


def _left_out(
    paths: Sequence[str],
    start: int,
    rows: Sequence[int],
    paired: set[int],
    words: frozenset[str],
    reason: str,
) -> tuple[dict[int, str], Notes]:
    """Of files whose names have one of `words` after `start`: those of each folder or pattern are left out
    for `reason` where most belong to another image."""
    what, one, several = WHAT[reason]
    left_out: dict[int, str] = {}
    notes: Notes = []
    groups: dict[tuple[str, bool], list[int]] = {}
    for group, members in _groups(paths, start, rows, words).items():
        belong = sum(row in paired for row in members) >= PAIRED * len(members)
        groups[group, belong] = members
    for (group, belong), members in _joined(groups).items():
        images = "1 file" if len(members) == 1 else f"{len(members):,} files"
        if not belong:
            pattern = group + "**" if group.endswith("/") else group
            text = f"{images} in {group} may be {what}, by name, and are read as images. "
            notes.append((f"{text}To leave them out: {setting('exclude', pattern)}.", members))
            continue
        left_out |= dict.fromkeys(members, reason)
        text = f"{images} left out as {one if len(members) == 1 else several}, by name: {group}. "
        notes.append((f"{text}To read them too: {setting('include', '*')}.", []))
    return left_out, notes


def _groups(
    paths: Sequence[str], start: int, rows: Sequence[int], words: frozenset[str]
) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for row in rows:
        group = _group(paths[row][start:], words)
        groups.setdefault(group if group.startswith("*") else paths[row][:start] + group, []).append(row)
    return groups


def _joined(groups: dict[tuple[str, bool], list[int]]) -> dict[tuple[str, bool], list[int]]:
    """Groups of folders of one name together, where there are many."""
    last = {key: key[0].rstrip("/").rpartition("/")[2] for key in groups}
    counts = Counter((name, key[1]) for key, name in last.items())
    joined: dict[tuple[str, bool], list[int]] = {}
    for key, rows in groups.items():
        many = counts[last[key], key[1]] > MAX_GROUPS
        joined.setdefault((f"*/{last[key]}/", key[1]) if many else key, []).extend(rows)
    return joined


def _group(path: str, words: frozenset[str]) -> str:
    """The outermost folder with one of `words`, as "annotations/", or a pattern of the file's name."""
    *folders, name = path.split("/")
    if SIZE_IN_NAME.search(name) and words is THUMBNAIL_WORDS:
        return "*-*x*.*"
    for depth, folder in enumerate(folders):
        if words.intersection(words_of(folder)):
            return "/".join(folders[: depth + 1]) + "/"
    return f"*{next(word for word in words_of(PurePosixPath(name).stem) if word in words)}*"
