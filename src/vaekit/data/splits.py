"""Assignment of images to training, validation and test, by their content and order, never by chance."""

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError

Splits = NDArray[np.int8]
SPLITS = ("train", "validation", "test")
TRAIN = 0
VALIDATION = 1
TEST = 2
LEFT_OUT = 3
"""Marks a duplicate of an image in a more protected split; it is in no split."""


def assign_splits(source_splits: Splits, content: NDArray[np.uint64], rule: str) -> Splits:
    """Assign every image to TRAIN, VALIDATION, TEST or LEFT_OUT.

    An image that is in several splits stays only in the most protected one: test, then validation, then
    train. With a share, the split of an image depends on its content alone, so it does not change when images
    are added.

    Args:
        source_splits: the split of each image in its source.
        content: a digest of each image's content; duplicates have equal digests.
        rule: how validation is cut from train if the source has no validation split: a share such as "0.1",
            or "last:N" (`DataConfig.validation`).
    """
    splits = source_splits.copy()
    for split in (TEST, VALIDATION):
        splits[(splits < split) & np.isin(content, content[splits == split])] = LEFT_OUT
    train = np.flatnonzero(splits == TRAIN)
    if len(train) and not (splits == VALIDATION).any():
        cut = _last if rule.startswith("last:") else _share
        splits[train] = cut(content[train], rule)
    if not (splits == TRAIN).any():
        message = "There are no training images: all are held out, or duplicates of held-out images."
        raise UserError(message, "Add images.")
    return splits


def _share(content: NDArray[np.uint64], rule: str) -> Splits:
    if content.min() == content.max():
        message = "All training images are identical, so none can be held out."
        raise UserError(message, "Add different images.")
    bound = min(int(float(rule) * 2**64), 2**64 - 1)
    # Neither split is empty: the smallest digest validates, the largest trains.
    bound = min(max(bound, int(content.min()) + 1), int(content.max()))
    return np.where(content < np.uint64(bound), VALIDATION, TRAIN).astype(np.int8)


def _last(content: NDArray[np.uint64], rule: str) -> Splits:
    count = int(rule.removeprefix("last:"))
    if count >= len(content):
        message = f"{rule} leaves nothing to train on, there are only {len(content)} images."
        raise UserError(message, option="validation")
    splits = np.full(len(content), TRAIN, np.int8)
    splits[-count:] = VALIDATION
    splits[:-count][np.isin(content[:-count], content[-count:])] = LEFT_OUT
    return splits
