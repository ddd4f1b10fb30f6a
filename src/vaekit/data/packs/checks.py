"""What is said of the images of a data set: copies, blank and dark images, masks, likeness of splits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.config.data import DataConfig
from vaekit.data.copies import alike, is_blank, thumbnails
from vaekit.data.packs.decoded import DecodedSource
from vaekit.data.packs.masks import few_colours, mask_notes, two_levels
from vaekit.data.packs.survey import NO_DATA
from vaekit.data.sources.pixels import slices
from vaekit.data.splits import LEFT_OUT, TRAIN, VALIDATION
from vaekit.errors import setting

DARK = 64
"""Levels up to which the brightest pixel of all images is too dark to be right."""
ALIKE_SHARE, ALIKE_PAIRS = 0.1, 3
"""Share, and number, of held-out images that look like training images from which on it is said."""
FEW_LEVELS, MOST_PIXELS = 20, 0.99
"""Neighbouring levels that hold this share of all pixels where the range of values is far too wide."""
DEFAULT_VALIDATION = str(DataConfig.model_fields["validation"].default)
BEFORE_NUMBER = r"(.*[^\d/])\d+\."
"""What comes before the last number of a path, as that of a frame."""
EXAMPLES = 3


@dataclass(frozen=True)
class Look:
    """What was seen of all images."""

    levels: NDArray[np.int64]
    """[256], the number of pixels of each level in all images."""
    thumbnails: NDArray[np.float32]
    blank: NDArray[np.bool_]
    """[N], whether an image is of one colour."""
    brightest: NDArray[np.uint8]
    """[N], the highest level of each image."""
    two_levels: NDArray[np.float32]
    """[N], the share of the pixels of the two most frequent levels, see `two_levels`."""
    few_colours: NDArray[np.float32]
    """[N], the share of the pixels of the most frequent colours, see `few_colours`."""


def look_at(source: DecodedSource) -> Look:
    """Look at all images once."""
    parts: list[tuple[Any, ...]] = []
    levels = np.zeros(256, np.int64)
    rows = np.arange(len(source.content))
    for split in np.unique(source.splits):  # the rows of one split are in one block
        for part in slices(int((source.splits == split).sum())):
            taken = rows[source.splits == split][part]
            images = source.read(taken)
            brightest = images.reshape(len(images), -1).max(1)
            levels += np.bincount(images.reshape(-1), minlength=256)
            seen = thumbnails(images), is_blank(images), brightest, two_levels(images), few_colours(images)
            parts.append((taken, *seen))
    taken, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(taken)
    return Look(levels, *(column[order] for column in columns))


def equal_images(source: DecodedSource) -> NDArray[np.int64]:
    """The number of the image that each is equal to, with its class or conditions: the first that is no link,
    or itself."""
    rows, numbers = np.arange(len(source.content)), _label_numbers(source)
    links = np.zeros(len(rows), np.bool_) if source.links is None else source.links
    order = np.lexsort((rows, links, numbers, source.content))
    content, labels = source.content[order], numbers[order]
    starts = np.r_[True, (content[1:] != content[:-1]) | (labels[1:] != labels[:-1])]
    first = np.empty(len(rows), np.int64)
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first


def joined_groups(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups of images that are connected by either of two groupings."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows = np.arange(len(one))
    nodes = len(rows) + int(one.max()) + int(other.max()) + 2
    ends = np.concatenate([len(rows) + one, len(rows) + int(one.max()) + 1 + other])
    graph = coo_matrix((np.ones(2 * len(rows)), (np.tile(rows, 2), ends)), shape=(nodes, nodes))
    return np.asarray(connected_components(graph, directed=False)[1][: len(rows)], np.int64)


def copy_notes(source: DecodedSource, first: NDArray[np.int64], groups: NDArray[np.int64]) -> list[str]:
    """What is said of copies, given the image that each is equal to, and the groups of near copies of those
    kept."""
    notes, count, distinct = [], len(first), int((first == np.arange(len(first))).sum())
    pictures = len(np.unique(source.content))
    if distinct < count and source.drop_copies:
        each = " in each class" if source.conditions is None else " with the same conditions"
        each = each if distinct > pictures else ""
        text = f"{count:,} images, {pictures:,} distinct: of copies one is read{each}."
        notes.append(f"{text} To read all: {setting('copies', 'keep')}.")
    elif distinct < count:
        text = f"{count:,} images, {pictures:,} distinct; copies are in the same split."
        notes.append(f"{text} To read each once: {setting('copies', 'drop')}.")
    if (several := distinct - pictures) > 0:
        notes.append(_several_labels_note(source, several))
    near = len(groups) - len(np.unique(groups)) - (0 if source.drop_copies else count - distinct)
    if near > 0:
        images = (
            "1 image is nearly equal to another, and is"
            if near == 1
            else (f"{near:,} images are nearly equal to others, and are")
        )
        notes.append(f"{images} in the same split.")
    return notes


def split_notes(source: DecodedSource, splits: NDArray[np.int8], validation: str) -> list[str]:
    """That a share for validation is not used, and that classes have no training images."""
    notes = []
    if validation != DEFAULT_VALIDATION and (source.splits == VALIDATION).any():
        notes.append(f"There is a validation split, so {setting('validation', validation)} is not used.")
    trained, used = np.unique(source.labels[splits == TRAIN]), np.unique(source.labels[splits != LEFT_OUT])
    missing = [source.classes[label] for label in np.setdiff1d(used, trained).tolist() if label >= 0]
    if missing:
        names = ", ".join(missing[:EXAMPLES]) + (", ..." if len(missing) > EXAMPLES else "")
        text = "1 class has" if len(missing) == 1 else f"{len(missing):,} classes have"
        notes.append(f"{text} no training images: {names}.")
    return notes


def group_notes(
    source: DecodedSource, groups: NDArray[np.int64], splits: NDArray[np.int8], rows: NDArray[np.int64]
) -> list[str]:
    """How many groups there are of the images `rows`, and whether one is in several splits of the source."""
    lowest, highest = (np.full(int(groups.max()) + 1, start, np.int8) for start in (LEFT_OUT, TRAIN))
    np.minimum.at(lowest, groups, splits)
    np.maximum.at(highest, groups, splits)
    names, divided = np.unique(groups), np.flatnonzero(highest > lowest)
    notes = [f"{len(rows):,} images in {len(names):,} groups."]
    divided = divided[np.isin(divided, names)]
    if len(divided):
        of_one = rows[groups == divided[0]]
        one, other = (of_one[splits[groups == divided[0]] == end[divided[0]]][0] for end in (lowest, highest))
        text = "1 group is" if len(divided) == 1 else f"{len(divided):,} groups are"
        notes.append(
            f"{text} in several splits of the source, e.g. {source.path(int(one))} and "
            f"{source.path(int(other))}, so results on held-out images will be too good. To keep a group in "
            "one split, move its images there."
        )
    return notes


def _label_numbers(source: DecodedSource) -> NDArray[np.int64]:
    """The class of every image, or a number for its conditions."""
    if source.conditions is None:
        return source.labels
    return np.unique(source.conditions.values, axis=0, return_inverse=True)[1].reshape(-1)


def _several_labels_note(source: DecodedSource, several: int) -> str:
    """That equal images have different classes or conditions, with an example."""
    row, other = _copy_with_another_label(source)
    if source.conditions is not None:
        images = "1 image is equal to another" if several == 1 else f"{several:,} images are equal to others"
        example = f"{source.path(row)} and {source.path(other)}"
        return f"{images} with different conditions, e.g. {example}."
    images = "1 image is" if several == 1 else f"{several:,} images are"
    classes = f"{source.classes[source.labels[row]]} and {source.classes[source.labels[other]]}"
    return f"{images} in several classes, e.g. {source.path(row)} is in {classes}."


def _copy_with_another_label(source: DecodedSource) -> tuple[int, int]:
    """Two equal images with different classes or conditions."""
    numbers, first = _label_numbers(source), dict[int, int]()
    for row, content in enumerate(source.content.tolist()):
        other = first.setdefault(content, row)
        if numbers[other] != numbers[row]:
            return other, row
    raise ValueError("equal images have equal labels")


def look_notes(source: DecodedSource, splits: NDArray[np.int8], look: Look, grouped: bool) -> list[str]:
    """What is said of the pixels of the images that are read."""
    used = np.flatnonzero(splits != LEFT_OUT)
    notes = []
    blank = used[look.blank[used]]
    if len(blank):
        images = "1 image is" if len(blank) == 1 else f"{len(blank):,} images are"
        notes.append(f"{images} blank, of one colour: {_examples(source, blank)}.")
    high = int(look.brightest[used].max())
    if high < DARK and not source.reading.get("level_limits") and not source.reading.get("limits"):
        levels = (
            "The images have only the levels 0 and 1" if high == 1 else f"No pixel has a level above {high}"
        )
        top = f"{(high or 1) * source.white / 255:.3g}"
        advice = f"To read {top} as white: {setting('range', f'0:{top}')}."
        notes.append(f"{levels} of 255, so they are nearly black. {advice}")
    notes += _range_notes(source, look.levels)
    notes += mask_notes(source.path, used, look.two_levels, look.few_colours, look.brightest)
    train, held_out = used[splits[used] == TRAIN], used[splits[used] != TRAIN]
    likeness = alike(look.thumbnails, held_out, train)
    if likeness.share > ALIKE_SHARE and len(likeness.pairs) >= ALIKE_PAIRS:
        one, other = likeness.pairs[0]
        advice = setting("validation", "last:N")
        if not grouped and source.links is not None:  # arrays have no names
            advice = _group_advice(source, [source.path(int(row)) for row in used], source.path(one))
        notes.append(
            f"{likeness.share:.0%} of the held-out images look like a training image, e.g. "
            f"{source.path(one)} like {source.path(other)}, so results on them will be too good. To keep "
            f"such images in one split: {advice}."
        )
    return notes


def _group_advice(source: DecodedSource, paths: Sequence[str], example: str) -> str:
    """How to keep images that look alike in one split: by folders inside of classes, or by names up to their
    last number, if there are several of either."""
    if len({path.rpartition("/")[0] for path in paths}) > max(1, len(source.classes)):
        return f"{setting('group', 'folder')} or a pattern"
    names = [re.search(BEFORE_NUMBER, path) for path in (example, *paths)]
    if names[0] and len({name[1] for name in names if name}) > 1:
        return setting("group", BEFORE_NUMBER)
    return f"{setting('group')} and a pattern of their names"


def _range_notes(source: DecodedSource, levels: NDArray[np.int64]) -> list[str]:
    """That the range of values of more than 8 bits leaves few levels to nearly all pixels: because of
    outliers, or of values that stand for no data."""
    limits = source.reading.get("limits")
    if not limits or any(NO_DATA in note for note in source.notes):
        return []
    shares = np.cumsum(levels) / levels.sum()
    low = int(np.searchsorted(shares, (1 - MOST_PIXELS) / 2))
    high = int(np.searchsorted(shares, (1 + MOST_PIXELS) / 2))
    if high - low >= FEW_LEVELS:
        return []
    if high == low and low in (0, 255):
        end = "black" if low == 0 else "white"
        return [f"{MOST_PIXELS:.0%} of the pixels are {end} by the range {limits[0]:g}:{limits[1]:g}."]
    step = (limits[1] - limits[0]) / 255
    ends = f"{limits[0] + max(0, low - 0.5) * step:.6g}:{limits[0] + min(255, high + 0.5) * step:.6g}"
    count = "1 of 256 levels" if high == low else f"{high - low + 1} of 256 levels"
    return [
        f"{MOST_PIXELS:.0%} of the pixels have {count}, since the range of values is far wider than theirs. "
        f"To spread these over all levels: {setting('range', ends)}."
    ]


def _examples(source: DecodedSource, rows: Sequence[int] | NDArray[np.int64]) -> str:
    names = [source.path(int(row)) for row in rows[:EXAMPLES]]
    return ", ".join(names) + (", ..." if len(rows) > EXAMPLES else "")
