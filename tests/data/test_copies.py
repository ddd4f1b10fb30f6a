"""Copies among images are result, and only they."""

import numpy as np
import pytest

from vaekit.data.copies import SIZE, alike, is_blank, near_copies, thumbnails

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (13, 9), (3, 5)])
def test_thumbnails_are_means_over_equal_areas(size: tuple[int, int]) -> None:
    images = RNG.integers(0, 256, (2, *size, 3), np.uint8)
    fine = images.repeat(SIZE, 1).repeat(SIZE, 2).astype(float)  # every part has whole pixels
    expected = fine.reshape(2, SIZE, size[0], SIZE, size[1], 3).mean((2, 4))
    np.testing.assert_allclose(thumbnails(images), expected, atol=1e-3)


def test_near_copies_are_those_within_two_levels() -> None:
    images = RNG.integers(10, 240, (30, 16, 16, 1), np.uint8)
    images[7], images[9], images[11] = images[3], images[3] + 2, images[3] + 4  # a chain
    images[20] = images[15] + 5
    groups = near_copies(thumbnails(images))
    expected = np.arange(30)
    expected[[7, 9, 11]] = 3
    assert groups.tolist() == expected.tolist()
    assert near_copies(thumbnails(images[:1])).tolist() == [0]
    same = near_copies(thumbnails(np.repeat(images[:1], 50, axis=0)))
    assert set(same.tolist()) == {0}


def test_likeness_of_splits_is_that_counted_by_hand() -> None:
    train = RNG.integers(0, 256, (200, 16, 16, 3), np.uint8)
    smooth = np.clip(train[:10].astype(int) + RNG.integers(-6, 7, train[:10].shape), 0, 255).astype(np.uint8)
    others = RNG.integers(0, 256, (10, 16, 16, 3), np.uint8)
    blank = np.full((5, 16, 16, 3), 255, np.uint8)
    thumbs = thumbnails(np.concatenate([train, smooth, others, blank]))
    result = alike(thumbs, np.arange(200, 225), np.arange(200))
    assert sorted(result.pairs) == [(200 + i, i) for i in range(10)] and result.share == 10 / 25
    distances = [np.abs(thumbs[one] - thumbs[other]).mean() for one, other in result.pairs]
    assert distances == sorted(distances)
    faint = np.full((2, 16, 16, 3), 255, np.uint8)
    faint[0, 2:4, 2:4], faint[1, 2:4, 2:4] = 0, 200  # small, of two colours
    assert alike(thumbnails(faint), np.array([0]), np.array([1])).share == 0
    assert alike(thumbs, np.arange(210, 220), np.arange(200)).share == 0


def test_blank_images() -> None:
    images = np.full((4, 6, 6, 3), 200, np.uint8)
    images[1, 0, 0] = 202
    images[2, 0, 0] = 203
    images[3, ..., 0] = 10  # of one colour, which is not gray
    assert is_blank(images).tolist() == [True, True, False, True]
