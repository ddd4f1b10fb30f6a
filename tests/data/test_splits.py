"""Sides are functions of content and order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaekit.data.splits import LEFT_OUT, TEST, TRAIN, VALIDATION, assign_splits
from vaekit.errors import UserError

digests = st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=60).filter(lambda words: len(set(words)) > 1)


def run(content: list[int], rule: str, given_sides: list[int] | None = None) -> np.ndarray:
    return assign_splits(np.array(given_sides or [TRAIN] * len(content), np.int8), np.array(content, np.uint64), rule)


@given(digests, st.sampled_from(["0.1", "0.5", "0.999", "1e-9"]))
def test_copies_stay_together_and_both_sides_have_images(content: list[int], rule: str) -> None:
    splits = run(content, rule)
    assert {TRAIN, VALIDATION} == set(splits.tolist())
    assert all(len(set(splits[np.array(content, np.uint64) == word].tolist())) == 1 for word in content)


def test_a_share_is_a_share() -> None:
    content = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64)
    assert abs((assign_splits(np.zeros(20_000, np.int8), content, "0.1") == VALIDATION).mean() - 0.1) < 0.01


@given(st.integers(0, 2**32), st.integers(40, 80), st.integers(1, 80))
def test_an_image_keeps_its_side_when_others_come(seed: int, before: int, more: int) -> None:
    content = np.random.default_rng(seed).integers(0, 2**64, before + more, np.uint64)
    content[0] = 5  # in the share, so that none is forced into it
    old, new = run(content[:before].tolist(), "0.1"), run(content.tolist(), "0.1")
    assert np.array_equal(old, new[:before])


def test_one_validates_however_small_the_share() -> None:
    assert run([2**63 + 2, 2**63, 2**63 + 1], "1e-9").tolist() == [TRAIN, VALIDATION, TRAIN]
    assert run([3, 1, 2], "0.9").tolist() == [TRAIN, VALIDATION, VALIDATION]


def test_last() -> None:
    assert run([7, 1, 2, 3, 4], "last:2").tolist() == [TRAIN, TRAIN, TRAIN, VALIDATION, VALIDATION]
    assert run([3, 1, 2, 3, 4], "last:2").tolist() == [LEFT_OUT, TRAIN, TRAIN, VALIDATION, VALIDATION]
    with pytest.raises(UserError, match="last:5 leaves nothing"):
        run([7, 1, 2, 3, 4], "last:5")


def test_a_copy_stays_where_it_judges() -> None:
    given_sides = [TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST]
    splits = run([1, 2, 2, 3, 3, 4], "0.1", given_sides)
    assert splits.tolist() == [TRAIN, LEFT_OUT, VALIDATION, LEFT_OUT, TEST, TEST]


def test_given_validation_is_not_cut_again() -> None:
    assert run(list(range(20)), "0.5", [TRAIN] * 19 + [VALIDATION]).tolist() == [TRAIN] * 19 + [VALIDATION]


@pytest.mark.parametrize("content", [[5, 5, 5], [9, 9]])
def test_copies_of_one_image_cannot_be_held_out(content: list[int]) -> None:
    with pytest.raises(UserError, match="copies of one"):
        run(content, "0.1")


def test_nothing_to_train_with() -> None:
    with pytest.raises(UserError, match="all are held out"):
        run([1, 2], "0.1", [TEST, TEST])
    with pytest.raises(UserError, match="copies of held-out"):
        run([1, 1], "0.1", [TRAIN, VALIDATION])
    with pytest.raises(UserError, match="copies of held-out"):
        run([1, 1], "last:1")
