"""The order of an epoch as a function from draw to row, so that no list of all rows is held in memory."""

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.utils.random import GOLDEN_GAMMA, splitmix64

Indices = NDArray[np.int64]

FEISTEL_ROUNDS = 6
FEISTEL_FACTOR = np.uint64(GOLDEN_GAMMA % 2**64)
HALF_WORD = np.uint64(32)
"""Bits in half a word; the upper half of a product is better mixed than the lower."""


def permute(positions: Indices, count: int, seed: int) -> Indices:
    """Evaluate a pseudorandom permutation of 0 to count - 1: a Feistel network with cycle walking.

    Black & Rogaway 2002, "Ciphers with arbitrary finite domains", section 5. The network permutes a power of
    four that is at least `count`; following its cycles until a value falls below `count` permutes the values
    below `count`. Returns the elements at `positions`, int64 [n].
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    counter = np.arange(1, FEISTEL_ROUNDS + 1, dtype=np.int64)
    keys = splitmix64(counter * GOLDEN_GAMMA + np.int64(seed)).view(np.uint64)

    def network(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = words >> half, words & mask
        for round_key in keys:
            left, right = right, left ^ (((right ^ round_key) * FEISTEL_FACTOR) >> HALF_WORD & mask)
        return (left << half) | right

    words = network(positions.astype(np.uint64))
    while (outside := np.flatnonzero(words >= np.uint64(count))).size:
        words[outside] = network(words[outside])
    return words.astype(np.int64)


class BatchSampler:
    """The rows of every batch that the process `rank` of `world_size` takes: each of `count` rows once.

    Each process takes an equal, contiguous part. Concatenated by rank, the parts are exactly the batch of a
    single process. `batch_size` counts all processes.
    """

    def __init__(self, count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < world_size or batch_size % world_size:
            message = f"must be a multiple of the {world_size} processes (got {batch_size})."
            raise UserError(message, option="batch_size")
        self.count, self.batch_size, self.share = count, batch_size, batch_size // world_size
        self.offset = rank * self.share
        """Position of this process's part within a batch."""

    def rows(self, draws: Indices, seed: int) -> Indices:
        """The rows int64 [n] that draws int64 [n] take in the epoch with this seed."""
        return permute(draws, self.count, seed)

    def batches(self, steps: range, seed: int) -> Indices:
        """This process's rows int64 [n, batch_size // world_size] in n steps of the epoch with this seed."""
        first = np.arange(steps.start, steps.stop)[:, None] * self.batch_size + self.offset
        draws = first + np.arange(self.share)
        return self.rows(draws.ravel(), seed).reshape(draws.shape)


class BalancedSampler(BatchSampler):
    """Draw from the classes in turn; within a class, each row once before any is repeated.

    `labels` [N] are the classes of all rows.
    """

    def __init__(self, labels: Indices, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(len(labels), batch_size, rank, world_size)
        self.order = np.argsort(labels, kind="stable").astype(np.int64)
        _, self.starts, self.counts = np.unique(labels[self.order], return_index=True, return_counts=True)

    def rows(self, draws: Indices, seed: int) -> Indices:
        class_count = len(self.counts)
        labels, turns = draws % class_count, draws // class_count
        rows = np.empty_like(draws)
        for label, (start, count) in enumerate(zip(self.starts.tolist(), self.counts.tolist(), strict=True)):
            for cycle in np.unique(turns[labels == label] // count).tolist():
                members = (labels == label) & (turns // count == cycle)
                cycle_seed = int(splitmix64(np.array([seed ^ (label << 32) ^ cycle], np.int64))[0])
                rows[members] = self.order[start + permute(turns[members] % count, count, cycle_seed)]
        return rows
