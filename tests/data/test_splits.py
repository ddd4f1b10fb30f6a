"""Splits are functions of content and order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import refused, user_error
from vaekit.data.splits import LEFT_OUT, TEST, TRAIN, VALIDATION, assign_splits

hashes = st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=60)
digests = hashes.filter(lambda content: len(set(content)) > 1)


def splits_of(content: list[int], rule: str, source_splits: list[int] | None = None) -> np.ndarray:
    source = np.array(source_splits or [TRAIN] * len(content), np.int8)
    return assign_splits(source, np.array(content, np.uint64), rule)


@given(digests, st.sampled_from(["0.1", "0.5", "0.999", "1e-9"]))
def test_copies_share_a_split_and_none_is_empty(content: list[int], rule: str) -> None:
    splits = splits_of(content, rule)
    assert {TRAIN, VALIDATION} == set(splits.tolist())
    assert all(len(set(splits[np.array(content, np.uint64) == word].tolist())) == 1 for word in content)


def test_validation_has_its_share_and_is_never_empty() -> None:
    content = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64)
    assert abs((assign_splits(np.zeros(20_000, np.int8), content, "0.1") == VALIDATION).mean() - 0.1) < 0.01
    assert splits_of([2**63 + 2, 2**63, 2**63 + 1], "1e-9").tolist() == [TRAIN, VALIDATION, TRAIN]
    assert splits_of([3, 1, 2], "0.9").tolist() == [TRAIN, VALIDATION, VALIDATION]
    assert splits_of([7, 1, 2, 3, 4], "last:2").tolist() == [TRAIN, TRAIN, TRAIN, VALIDATION, VALIDATION]
    assert splits_of([3, 1, 2, 3, 4], "last:2").tolist() == [LEFT_OUT, TRAIN, TRAIN, VALIDATION, VALIDATION]
    with user_error("`validation`: last:5 leaves nothing to train on, there are only 5 images"):
        splits_of([7, 1, 2, 3, 4], "last:5")


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_groups_stay_in_one_split_and_have_the_share(size: int) -> None:
    """The smallest digest of a group would hold out 1 - 0.9^size of the images."""
    content = np.random.default_rng(0).integers(0, 2**64, 30_000, np.uint64)
    groups = np.arange(30_000) // size
    held_out = (assign_splits(np.zeros(30_000, np.int8), content, "0.1", groups) == VALIDATION).reshape(
        -1, size
    )
    assert (held_out.all(1) == held_out.any(1)).all()
    assert abs(held_out.mean() - 0.1) < 0.02


def test_no_validation_split_is_one_picture() -> None:
    """58 copies and 40 other images: whatever their digest, the copies are not held out alone."""
    for digest in (0, 2**62, 2**63, 2**64 - 1):
        others = np.random.default_rng(digest % 97).integers(0, 2**64, 40, np.uint64)
        content = np.concatenate([np.full(58, digest, np.uint64), others])
        splits = assign_splits(np.zeros(98, np.int8), content, "0.1")
        assert set(splits[:58].tolist()) == {TRAIN} and 1 <= (splits == VALIDATION).sum() <= 30


@given(st.integers(0, 2**32), st.integers(40, 80), st.integers(1, 80))
def test_splits_are_stable_when_images_are_added(seed: int, before: int, more: int) -> None:
    content = np.random.default_rng(seed).integers(0, 2**64, before + more, np.uint64)
    content[0] = 5  # in the share, so that none is forced into it
    old, new = splits_of(content[:before].tolist(), "0.1"), splits_of(content.tolist(), "0.1")
    assert np.array_equal(old, new[:before])


def test_existing_splits_are_used_and_protected() -> None:
    source_splits = [TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST]
    splits = splits_of([1, 2, 2, 3, 3, 4], "0.1", source_splits)
    assert splits.tolist() == [TRAIN, LEFT_OUT, VALIDATION, LEFT_OUT, TEST, TEST]
    source_splits = [TRAIN] * 19 + [VALIDATION]
    assert splits_of(list(range(20)), "0.5", source_splits).tolist() == source_splits


@pytest.mark.parametrize("content", [[5, 5, 5], [9, 9]])
def test_identical_images_cannot_be_split(content: list[int]) -> None:
    refused("images are identical", splits_of, content, "0.1")


def test_an_empty_training_split_is_refused() -> None:
    refused("all are held out", splits_of, [1, 2], "0.1", [TEST, TEST])
    refused("duplicates of held-out", splits_of, [1, 1], "0.1", [TRAIN, VALIDATION])
    refused("duplicates of held-out", splits_of, [1, 1], "last:1")
