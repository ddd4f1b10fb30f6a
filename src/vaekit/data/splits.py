"""Assignment of images to training, validation and test, by their content and order, never by chance."""

import re

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError, setting

Splits = NDArray[np.int8]
Digests = NDArray[np.uint64]
SPLITS = ("train", "validation", "test")
TRAIN = 0
VALIDATION = 1
TEST = 2
LEFT_OUT = 3
"""Marks a duplicate of an image in a more protected split; it is in no split."""
MAX_EXCESS = 3
"""Size of a validation split over the requested share, at most, if groups of images allow it."""


def assign_splits(
    source_splits: Splits, content: Digests, rule: str, groups: NDArray[np.int64] | None = None
) -> Splits:
    """Assign every image to TRAIN, VALIDATION, TEST or LEFT_OUT.

    An image that is in several splits stays only in the most protected one: test, then validation, then
    train. With a share, the split of an image depends on its content alone, or that of its group, so it does
    not change when images are added.

    Args:
        source_splits: the split of each image in its source.
        content: a digest of each image's content; duplicates have equal digests.
        rule: how validation is cut from train if the source has no validation split: a share such as "0.1",
            or "last:N" (`DataConfig.validation`).
        groups: the number of the group of each image, which stays in one split; by default every image is a
            group with its duplicates.
    """
    splits = source_splits.copy()
    for split in (TEST, VALIDATION):
        splits[(splits < split) & np.isin(content, content[splits == split])] = LEFT_OUT
    train = np.flatnonzero(splits == TRAIN)
    if len(train) and not (splits == VALIDATION).any():
        if rule.startswith("last:"):
            splits[train] = _last(content[train], rule)
        else:
            splits[train] = _share(content[train], float(rule), None if groups is None else groups[train])
    if not (splits == TRAIN).any():
        message = "There are no training images: all are held out, or duplicates of held-out images."
        hint = f"Add images, or read the folders of splits as classes: {setting('split_folders', 'never')}."
        raise UserError(message, hint)
    return splits


def _share(content: Digests, share: float, groups: NDArray[np.int64] | None) -> Splits:
    if content.min() == content.max():
        message = "All training images are identical, so none can be held out."
        raise UserError(message, "Add different images.")
    keys = content if groups is None else _group_digests(content, groups)
    keys = content if keys.min() == keys.max() else keys
    bound = min(int(share * 2**64), 2**64 - 1)
    # Neither split is empty: the smallest digest validates, the largest trains.
    bound = min(max(bound, int(keys.min()) + 1), int(keys.max()))
    held_out = keys < np.uint64(bound)
    if _is_lopsided(keys, held_out, share):
        held_out = _small_groups(keys, share, held_out)
    return np.where(held_out, VALIDATION, TRAIN).astype(np.int8)


def _group_digests(content: Digests, groups: NDArray[np.int64]) -> Digests:
    """A digest of the group of each image: that of the image if the group has no other content."""
    _, numbers = np.unique(groups, return_inverse=True)
    smallest = np.full(int(numbers.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    largest = np.zeros_like(smallest)
    np.minimum.at(smallest, numbers, content)
    np.maximum.at(largest, numbers, content)
    # The smallest of several digests would be held out more often than one
    return np.where(smallest < largest, _mixed(smallest), smallest)[numbers]


def _mixed(digests: Digests) -> Digests:
    """Other digests, as evenly spread as independent ones: the mixing function of SplitMix64 (Steele, Lea &
    Flood 2014, "Fast splittable pseudorandom number generators", figure 15)."""
    z = (digests ^ (digests >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _is_lopsided(keys: Digests, held_out: NDArray[np.bool_], share: float) -> bool:
    """Whether the validation split is one picture several times, or far larger than requested."""
    one_picture = held_out.sum() > 1 and len(np.unique(keys[held_out])) == 1
    return bool(one_picture or held_out.mean() > MAX_EXCESS * share)


def _small_groups(keys: Digests, share: float, held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Hold out the groups of the smallest digests that together have the share; `held_out` if that cannot be.

    Groups of more images than the share are passed over, so that no single picture is the validation split.
    """
    digests, numbers, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    target = max(1.0, share * len(keys))
    chosen = np.zeros(len(digests), np.bool_)
    count = 0
    for number, size in enumerate(sizes.tolist()):
        if size <= target and count < target:
            chosen[number] = True
            count += size
    return chosen[numbers] if chosen.any() and not chosen.all() else held_out


def _last(content: Digests, rule: str) -> Splits:
    count = int(rule.removeprefix("last:"))
    if count >= len(content):
        message = f"{rule} leaves nothing to train on, there are only {len(content)} images."
        raise UserError(message, option="validation")
    splits = np.full(len(content), TRAIN, np.int8)
    splits[-count:] = VALIDATION
    splits[:-count][np.isin(content[:-count], content[-count:])] = LEFT_OUT
    return splits


def groups_by_path(paths: list[str], pattern: str) -> tuple[NDArray[np.int64], list[str]]:
    """Number the groups of images by their paths; also return the paths that do not match.

    Args:
        paths: the path of each image, separated by "/".
        pattern: "folder", or a regular expression, whose groups, or else the whole match, name the group; an
            image that does not match is a group of its own.
    """
    names: dict[object, int] = {}
    expression = None if pattern == "folder" else re.compile(pattern)
    matches = [expression.search(path) if expression else None for path in paths]
    numbers = []
    for row, (path, match) in enumerate(zip(paths, matches, strict=True)):
        name: object = path.rpartition("/")[0] if expression is None else row
        if match:
            name = match.groups() or match[0]
        numbers.append(names.setdefault(name, len(names)))
    hint = f"Choose another {setting('group')}."
    if expression and not any(matches):
        raise UserError(f"No path matches {pattern!r}, e.g. {paths[0]!r} does not.", hint)
    if len(names) == 1:
        raise UserError(f"All images are in one group by {pattern!r}, so none can be held out.", hint)
    unmatched = [path for path, match in zip(paths, matches, strict=True) if expression and not match]
    return np.array(numbers, np.int64), unmatched
