"""Cost of pictures, the loss graph and checkpoints: python benchmarks/pictures.py [epochs] [rounds]

Trains `classic` on the bundled sample like `vaekit train`, and the same without writing any of them, in turn;
prints the seconds of both and the median ratio. Each run is a whole call in this process, after all imports,
and without fitting a prior, which takes the same time in both.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from vaekit.training.artifacts import DataPreview, LossGraph, Pictures
from vaekit.training.callbacks import Callback
from vaekit.training.checkpointing import Checkpoints
from vaekit.training.request import TrainRequest
from vaekit.training.session import run_training


def seconds(epochs: int, folder: Path, callbacks: Sequence[Callback]) -> float:
    request = TrainRequest(layers=({"epochs": epochs},), out=folder, quiet=True)
    start = time.perf_counter()
    run_training(request, callbacks)
    return time.perf_counter() - start


def main(epochs: int, rounds: int) -> None:
    """Whole trainings with pictures, loss graph and checkpoints, and without them, in turn."""
    no_checkpoints = mock.patch.object(Checkpoints, "_save")
    pairs = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds(1, folder / "warm", [])
        for number in range(rounds):
            complete = seconds(epochs, folder / f"whole-{number}", [DataPreview(), Pictures(), LossGraph()])
            with no_checkpoints:
                pairs.append((complete, seconds(epochs, folder / f"bare-{number}", [])))
    for name, times in zip(("with", "without"), zip(*pairs, strict=True), strict=True):
        print(f"{name:<8} {statistics.median(times):6.1f} s (median of {rounds})")
    ratios = [complete / bare for complete, bare in pairs]
    print(f"ratio    {statistics.median(ratios):6.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] + ["10", "3"][len(sys.argv) - 1 :])))
