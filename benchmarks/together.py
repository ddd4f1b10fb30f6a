"""Two trainings that share the cores: images a second of each, with all threads each and with a share of them.
The ways take turns.

python benchmarks/together.py          # five minutes; writes benchmarks/results/together.json
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

NETWORKS = {
    "784-400-20": {"encoder": "mlp", "decoder": "mlp", "latents": 20, "batch_size": 128},
    "classic": {},
}
SECONDS, ROUNDS = 5.0, 5
RESULTS = Path(__file__).parent / "results" / "together.json"


def train(name: str) -> None:
    """Print the images a second of epochs of 3,000 images, their median."""
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
        begun = time.perf_counter()
        count = run_once()
        speeds.append(count / (time.perf_counter() - begun))
    print(round(statistics.median(speeds)))


def together(count: int, name: str, threads: int) -> list[int]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, name]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [int(one.communicate()[0]) for one in running]


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    ways = [(1, cores), (1, cores // 2), (2, cores), (2, cores // 2)]
    found: dict[str, dict[str, float]] = {}
    for name in NETWORKS:
        speeds: dict[tuple[int, int], list[int]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for count, threads in ways:
                speeds[count, threads] += together(count, name, threads)
        found[name] = {}
        for count, threads in ways:
            how = f"{('one', 'two at once')[count - 1]}, {threads} thread{'s' * (threads > 1)}"
            found[name][how if count == 1 else f"{how} each"] = statistics.median(speeds[count, threads])
            print(
                f"{name:<11} {how}: {statistics.median(speeds[count, threads]):,.0f} images/s each",
                flush=True,
            )
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    train(sys.argv[1]) if sys.argv[1:] else main()
