"""Every random number of a run is keyed by what it is for, never by what was drawn before it.

`derive_seed(seed, "order", epoch)` seeds a generator. A run that resumes at some epoch or step draws there
what an uninterrupted run draws, because the state of a generator is never carried over.
"""

import hashlib
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Words = TypeVar("Words", NDArray[np.int64], Tensor)

GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64
"""The step of splitmix64's counter: an odd number near 2^64 over the golden ratio, as a signed word."""


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on all `parts` and on nothing else, on every machine."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def splitmix64(words: Words) -> Words:
    """The finalizer of splitmix64: 64 bits in, 64 unrelated bits out.

    Steele et al. 2014, "Fast splittable pseudorandom number generators" (OOPSLA).

    Args:
        words: int64 array or tensor, not a scalar: products wrap around, as the algorithm wants.
    """
    words = (words ^ _shift_right(words, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    words = (words ^ _shift_right(words, 27)) * (0x94D049BB133111EB - 2**64)
    return words ^ _shift_right(words, 31)


def _shift_right(words: Words, bits: int) -> Words:
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def unit_interval(words: Tensor) -> Tensor:
    """Random words int64 as float32 numbers in [0, 1), by their upper 24 bits."""
    return _shift_right(words, 40).float() / (1 << 24)
