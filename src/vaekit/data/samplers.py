"""The order of an epoch as a function: which row a draw takes, without a list of all rows in memory."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


UInt64s = NDArray[np.uint64]


GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


FEISTEL_ROUNDS = 6


HALF_WORD = np.uint64(32)
"""Bits of half a word: the upper half of a product is the better mixed one."""


def mix(words: UInt64s) -> UInt64s:
    """The finaliser of splitmix64 (Steele et al. 2014, OOPSLA): 64 bits in, 64 unrelated bits out."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def permute(positions: Indices, count: int, seed: int) -> Indices:
    """A permutation of 0 to count - 1, taken at `positions`: a Feistel network that walks until it lands inside.

    Black & Rogaway 2002, "Ciphers with arbitrary finite domains", section 5: the network permutes a power of four no
    smaller than `count`; following its cycles until a value falls below `count` permutes those below `count`.
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    offset = np.uint64(seed)
    keys = mix(np.arange(1, FEISTEL_ROUNDS + 1, dtype=np.uint64) * GOLDEN_GAMMA + offset)

    def network(words: UInt64s) -> UInt64s:
        left, right = words >> half, words & mask
        for round_key in keys:
            left, right = right, left ^ (((right ^ round_key) * GOLDEN_GAMMA) >> HALF_WORD & mask)
        return (left << half) | right

    words = network(positions.astype(np.uint64))
    while (outside := np.flatnonzero(words >= np.uint64(count))).size:
        words[outside] = network(words[outside])
    return words.astype(np.int64)


class ShuffleSampler:
    """Every row once. `rows` gives what the draws with these numbers take in the epoch of this seed."""

    def __init__(self, count: int) -> None:
        self.count = count

    def rows(self, draws: Indices, seed: int) -> Indices:
        return permute(draws, self.count, seed)


class BalancedSampler:
    """The classes in turn; within a class every row once before any comes again."""

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self.order = np.argsort(labels, kind="stable").astype(np.int64)
        _, self.starts, self.counts = np.unique(labels[self.order], return_index=True, return_counts=True)

    def rows(self, draws: Indices, seed: int) -> Indices:
        class_count = len(self.counts)
        labels, turns = draws % class_count, draws // class_count  # the n-th turn of each class
        rows = np.empty_like(draws)
        for label, (start, count) in enumerate(zip(self.starts.tolist(), self.counts.tolist(), strict=True)):
            for cycle in np.unique(turns[labels == label] // count).tolist():
                members = (labels == label) & (turns // count == cycle)
                cycle_seed = int(mix(np.array([seed ^ (label << 32) ^ cycle], np.uint64))[0])
                rows[members] = self.order[start + permute(turns[members] % count, count, cycle_seed)]
        return rows
