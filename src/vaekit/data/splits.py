"""Which images train, which validate, which test: pure functions of content and order, never of chance."""

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError

SPLITS = ("train", "validation", "test")


TRAIN = 0
VALIDATION = 1
TEST = 2


LEFT_OUT = 3
"""Marks an image that is on no split: a copy of one on a split that must stay unseen in training."""


NOTHING_TO_TRAIN = "No images to train with: all are held out or copies of held-out ones, so add other images to train."


def assign_splits(source_splits: NDArray[np.int8], content: NDArray[np.uint64], rule: str) -> NDArray[np.int8]:
    """The split of every image: TRAIN, VALIDATION, TEST or LEFT_OUT.

    Args:
        source_splits: [N] the split the source puts each image on.
        content: [N] digest of each image's content; equal digests are copies.
        rule: "0.1" or "last:N", how validation is cut from train where the source has none (`config.Data.validation`).

    A copy across splits stays where it judges: in test before validation before train. An image's split by a share
    depends on its content alone, so it stays when others come. Where no digest falls into the share the smallest
    one validates, so that there is always a validation split.

    Raises:
        UserError: there is nothing to train or validate with.
    """
    splits = source_splits.copy()
    for split in (TEST, VALIDATION):
        splits[(splits < split) & np.isin(content, content[splits == split])] = LEFT_OUT
    train = np.flatnonzero(splits == TRAIN)
    if not len(train):
        raise UserError(NOTHING_TO_TRAIN)
    if not (splits == VALIDATION).any():
        splits[train] = _last(content[train], rule) if rule.startswith("last:") else _share(content[train], rule)
    if not (splits == TRAIN).any():
        raise UserError(NOTHING_TO_TRAIN)
    return splits


def _share(content: NDArray[np.uint64], rule: str) -> NDArray[np.int8]:
    if content.min() == content.max():
        raise UserError("All images to train with are copies of one, so none can be held out: add other images.")
    bound = min(int(float(rule) * 2**64), 2**64 - 1)
    # At least one on either split: the smallest digest validates, the largest trains.
    bound = min(max(bound, int(content.min()) + 1), int(content.max()))
    return np.where(content < np.uint64(bound), VALIDATION, TRAIN).astype(np.int8)


def _last(content: NDArray[np.uint64], rule: str) -> NDArray[np.int8]:
    count = int(rule.removeprefix("last:"))
    if count >= len(content):
        raise UserError(
            f"--validation {rule} leaves nothing to train with: there are {len(content)} images, so hold out fewer."
        )
    splits = np.full(len(content), TRAIN, np.int8)
    splits[-count:] = VALIDATION
    splits[:-count][np.isin(content[:-count], content[-count:])] = LEFT_OUT
    return splits
