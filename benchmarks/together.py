"""Two trainings that share the cores: images per second of each, with all threads each and with half of them
each. The setups are measured in turn, with the waiting of threads as in the command `vaekit`, unless
GOMP_SPINCOUNT is set.

    python benchmarks/together.py          # ten minutes; writes benchmarks/results/together.json
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from vaekit.cli.main import limit_busy_waiting

NETWORKS = {
    "784-400-20": {"encoder": "mlp", "decoder": "mlp", "latents": 20, "batch_size": 128},
    "classic": {},
}
SECONDS = 5.0
ROUNDS = 5
RESULTS = Path(__file__).parent / "results" / "together.json"


def train(name: str) -> None:
    """Print images per second, the median over epochs of 3,000 images. Runs in a new process."""
    import torch

    from vaekit.bench.loops import vaekit_loop
    from vaekit.bench.workloads import bundled_images
    from vaekit.config.overrides import resolve
    from vaekit.data.packs.pack import open_pack

    config = resolve(NETWORKS[name], {"validation": "last:1"})
    pack = open_pack(bundled_images()[:3000], config.data, quiet=True)
    run_once = vaekit_loop(config, pack, torch.device("cpu"))
    run_once()
    speeds: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or not speeds:
        start = time.perf_counter()
        count = run_once()
        speeds.append(count / (time.perf_counter() - start))
    print(round(statistics.median(speeds)))


def train_together(count: int, name: str, threads: int) -> list[int]:
    """Images per second of each of `count` simultaneous trainings."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, name]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    return [int(process.communicate()[0]) for process in running]


def describe(count: int, threads: int) -> str:
    number = f"{threads} thread" if threads == 1 else f"{threads} threads"
    return f"one, {number}" if count == 1 else f"two at once, {number} each"


def main() -> None:
    limit_busy_waiting()
    cores = len(os.sched_getaffinity(0))
    setups = [(1, cores), (1, cores // 2), (2, cores), (2, cores // 2)]
    results: dict[str, dict[str, float]] = {}
    for name in NETWORKS:
        speeds: dict[str, list[int]] = {describe(*setup): [] for setup in setups}
        for _ in range(ROUNDS):
            for count, threads in setups:
                speeds[describe(count, threads)] += train_together(count, name, threads)
        results[name] = {setup: statistics.median(values) for setup, values in speeds.items()}
        for setup, speed in results[name].items():
            print(f"{name:<11} {setup}: {speed:,.0f} images/s", flush=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    train(sys.argv[1]) if sys.argv[1:] else main()
