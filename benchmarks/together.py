"""Two trainings that share the cores: images a second of each, with threads that spin and with threads that give way.

python benchmarks/together.py          # a minute and a half
"""

import os
import statistics
import subprocess
import sys
import time

SPINS = ("300000", "3000")
"""Turns of a waiting thread: OpenMP's own, and what `vaekit` sets."""
NETWORKS = {"784-400-20": {"encoder": "mlp", "decoder": "mlp", "latents": 20, "batch_size": 128}, "classic": {}}
SECONDS = 5.0


def train(name: str) -> None:
    """Print the images a second of epochs of 3,000 images, their median."""
    import torch

    from vaekit.bench import contestants
    from vaekit.bench.workloads import bundled
    from vaekit.data.pack import open_pack
    from vaekit.resolve import resolve

    config = resolve(NETWORKS[name], {"validation": "last:1"})
    turn = contestants.vaekit(config, open_pack(bundled()[:3000], config.data, quiet=True), torch.device("cpu"))
    speeds: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or not speeds:
        begun = time.perf_counter()
        count = turn()
        speeds.append(count / (time.perf_counter() - begun))
    print(round(statistics.median(speeds)))


def together(count: int, name: str, spin: str) -> list[int]:
    environment = os.environ | {"GOMP_SPINCOUNT": spin}
    command = [sys.executable, __file__, name]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [int(one.communicate()[0]) for one in running]


def main() -> None:
    for name in NETWORKS:
        for spin in SPINS:
            for count in (1, 2):
                print(
                    f"{name:<11} {spin:>6} turns, {count} at once: {together(count, name, spin)} images/s", flush=True
                )


if __name__ == "__main__":
    train(sys.argv[1]) if sys.argv[1:] else main()
