"""Images per second of vaekit's loop against a bare loop: python benchmarks/training.py [rounds]

The bare loop is the same 784-400-20 network and Adam over slices of one float tensor, and nothing else: no shuffling,
no moving average of the weights, no seeds, no metrics. Both run interleaved in one process, batch 128, float32; the
figure is the median of the ratios.
"""

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.build import build
from vaekit.data.batches import Batches
from vaekit.data.pack import open_pack
from vaekit.resolve import resolve
from vaekit.training.loop import Progress, train
from vaekit.training.optimizers import optimizer_for

BATCH, STEPS = 128, 400


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.heads = nn.Linear(784, 400), nn.Linear(400, 40)
        self.outer, self.pixels = nn.Linear(20, 400), nn.Linear(400, 784)

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.heads(F.relu(self.inner(x))).chunk(2, -1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        logits = self.pixels(F.relu(self.outer(z)))
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return reconstruction - 0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())


def bare_loop(images: np.ndarray) -> Callable[[int], float]:
    x = torch.from_numpy(images).flatten(1).float() / 255
    model = Bare()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def run(steps: int) -> float:
        begun = time.perf_counter()
        for step in range(steps):
            loss = model(x[step * BATCH : (step + 1) * BATCH]) / BATCH
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return steps * BATCH / (time.perf_counter() - begun)

    return run


def vaekit_loop(images: np.ndarray) -> Callable[[int], float]:
    pack = open_pack(images, resolve().data, quiet=True)
    config = resolve({"encoder": "mlp", "decoder": "mlp", "latents": 20, "batch_size": BATCH, "epochs": 1_000_000})
    model, objective = build(config, pack.shape)
    kept = copy.deepcopy(model).requires_grad_(False)
    batches = Batches(pack, config.data, BATCH, 0, torch.device("cpu"))
    optimizer = optimizer_for(model.parameters(), config.training)
    progress = Progress()

    def run(steps: int) -> float:
        progress.epoch, progress.done = progress.epoch + 1, 0  # a fresh epoch, so that none ends in the measurement
        assert steps < batches.steps_per_epoch
        left = steps

        def on_step(_: Tensor) -> bool:
            nonlocal left
            left -= 1
            return left == 0

        begun = time.perf_counter()
        list(train(model, kept, batches, objective, optimizer, config.training, progress, on_step))
        return steps * BATCH / (time.perf_counter() - begun)

    return run


def main(rounds: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), np.uint8)
    runs = {"bare": bare_loop(images), "vaekit": vaekit_loop(images)}
    for run in runs.values():
        run(100)
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            speeds[name].append(run(STEPS))
    for name, seen in speeds.items():
        print(f"{name:<8} {statistics.median(seen):>10,.0f} images/s (median of {rounds})")
    ratios = [ours / bare for ours, bare in zip(speeds["vaekit"], speeds["bare"], strict=True)]
    print(f"ratio    {statistics.median(ratios):>10.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        import os

        os.environ["XDG_CACHE_HOME"] = str(Path(cache))
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
