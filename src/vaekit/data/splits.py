"""Which images are for training, validation and test: a function of content and order, never of chance."""

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError

SPLITS = ("train", "validation", "test")

TRAIN = 0
VALIDATION = 1
TEST = 2

LEFT_OUT = 3
"""Marks a duplicate of an image in a more protected split; it is in no split."""


def assign_splits(
    source_splits: NDArray[np.int8], content: NDArray[np.uint64], rule: str
) -> NDArray[np.int8]:
    """Assign every image to TRAIN, VALIDATION, TEST or LEFT_OUT.

    An image that is in several splits stays only in the most protected one: test, then validation, then
    train. With a share, the split of an image depends on its content alone, so it does not change when images
    are added. If no digest falls into the share, the image with the smallest one validates, so that the
    validation split is never empty.

    Args:
        source_splits: int8 [N], the split of each image in its source.
        content: uint64 [N], a digest of each image's content; duplicates have equal digests.
        rule: how validation is cut from train if the source has no validation split: a share such as "0.1",
            or "last:N" (`DataConfig.validation`).

    Returns:
        int8 [N].

    Raises:
        UserError: the training or the validation split would be empty.
    """
    splits = source_splits.copy()
    for split in (TEST, VALIDATION):
        splits[(splits < split) & np.isin(content, content[splits == split])] = LEFT_OUT
    train = np.flatnonzero(splits == TRAIN)
    if not len(train):
        raise _nothing_to_train()
    if not (splits == VALIDATION).any():
        splits[train] = (
            _last(content[train], rule) if rule.startswith("last:") else _share(content[train], rule)
        )
    if not (splits == TRAIN).any():
        raise _nothing_to_train()
    return splits


def _nothing_to_train() -> UserError:
    return UserError(
        "There are no training images: all are held out, or duplicates of held-out images.", "Add images."
    )


def _share(content: NDArray[np.uint64], rule: str) -> NDArray[np.int8]:
    if content.min() == content.max():
        raise UserError(
            "All training images are identical, so none can be held out.", "Add different images."
        )
    bound = min(int(float(rule) * 2**64), 2**64 - 1)
    # Neither split is empty: the smallest digest validates, the largest trains.
    bound = min(max(bound, int(content.min()) + 1), int(content.max()))
    return np.where(content < np.uint64(bound), VALIDATION, TRAIN).astype(np.int8)


def _last(content: NDArray[np.uint64], rule: str) -> NDArray[np.int8]:
    count = int(rule.removeprefix("last:"))
    if count >= len(content):
        raise UserError(
            f"{rule} leaves nothing to train on, there are only {len(content)} images.", option="validation"
        )
    splits = np.full(len(content), TRAIN, np.int8)
    splits[-count:] = VALIDATION
    splits[:-count][np.isin(content[:-count], content[-count:])] = LEFT_OUT
    return splits
