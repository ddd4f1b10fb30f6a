"""What pictures, the loss graph and checkpoints cost: python benchmarks/pictures.py [epochs] [rounds]

Trains `classic` on the bundled sample as `vaekit train` does, and again without writing any of them, in turn; prints
the seconds of both and the median of the ratios. Each run is a whole call in this process, its imports done before;
without the prior that is fitted afterwards, which takes as long with pictures as without.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from vaekit.training.plan import TrainRequest
from vaekit.training.session import _Session, run_training


def seconds(epochs: int, folder: Path) -> float:
    request = TrainRequest(layers=({"epochs": epochs},), out=folder, quiet=True)
    begun = time.perf_counter()
    run_training(request)
    return time.perf_counter() - begun


def nothing(*_: Any, **__: Any) -> None:
    return None


def main(epochs: int, rounds: int) -> None:
    training_alone = mock.patch.multiple(_Session, _fit_prior=nothing)
    bare = mock.patch.multiple(_Session, _save=nothing, _draw_graph=nothing, _draw_pictures=nothing)
    pairs = []
    with tempfile.TemporaryDirectory() as temporary, training_alone:
        folder = Path(temporary)
        seconds(1, folder / "warm")
        for number in range(rounds):
            whole = seconds(epochs, folder / f"whole-{number}")
            with bare:
                pairs.append((whole, seconds(epochs, folder / f"bare-{number}")))
    for name, times in zip(("with", "without"), zip(*pairs, strict=True), strict=True):
        print(f"{name:<8} {statistics.median(times):6.1f} s (median of {rounds})")
    ratios = [whole / bare for whole, bare in pairs]
    print(f"ratio    {statistics.median(ratios):6.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] + ["10", "3"][len(sys.argv) - 1 :])))
