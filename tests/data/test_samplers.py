"""The order of an epoch, in one process and in several."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vaekit.data.samplers import BalancedSampler, BatchSampler, permute


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1))
@settings(max_examples=60)
def test_permute_is_a_permutation(count: int, seed: int) -> None:
    assert sorted(permute(np.arange(count), count, seed).tolist()) == list(range(count))


def test_permutations_are_unbiased() -> None:
    orders = np.array([permute(np.arange(20), 20, seed) for seed in range(4000)])
    places = np.array([np.bincount(column, minlength=20) for column in orders.T])
    assert np.abs(places - 200).max() < 5.5 * np.sqrt(200)  # every image at every place equally often
    steps = np.mean((orders[:, 1:] - orders[:, :-1]) % 20 == 1)
    assert abs(steps - 1 / 20) < 0.005  # neighbours stay neighbours no more often than by chance


NUMBERS = (st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**63 - 1), st.integers(1, 200))


@given(*NUMBERS, st.integers(0, 9), st.booleans())
@settings(max_examples=60)
def test_ranks_share_batches(size: int, share: int, seed: int, count: int, start: int, balance: bool) -> None:
    def batches(rank: int, processes: int) -> np.ndarray:
        batch = share * size
        ranks = (batch, rank, processes)
        balanced = BalancedSampler(np.arange(count) ** 2 % 3, *ranks)
        sampler = balanced if balance else BatchSampler(count, *ranks)
        return sampler.batches(range(min(start, count // batch), count // batch), seed)

    together = np.concatenate([batches(rank, size) for rank in range(size)], axis=1)
    assert np.array_equal(together, batches(0, 1))


def test_balanced_sampler_draws_classes_in_turn() -> None:
    rows = BalancedSampler(np.repeat([5, 9], [7, 3]), 2).rows(np.arange(28), 1)
    assert sorted(rows[0::2].tolist()) == sorted(list(range(7)) * 2)
    rare = rows[1::2]
    assert (np.sort(rare[:12].reshape(4, 3)) == [7, 8, 9]).all()  # all three before any is repeated
    assert len({tuple(turn) for turn in rare[:12].reshape(4, 3)}) > 1
