"""Every random number of a run is keyed by what it is for, never by what was drawn before it.

`derive_seed(seed, "order", epoch)` is a number to seed a generator with; a run that resumes at some epoch or step draws
there what an uninterrupted run draws, because nothing of a generator's past is needed.
"""

import hashlib


def derive_seed(*words: int | str) -> int:
    """A 63-bit seed that depends on all `words` and on nothing else, on every machine."""
    text = "\x1f".join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
