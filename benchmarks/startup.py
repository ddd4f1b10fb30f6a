"""Seconds that `vaekit --help` takes, beside a bare interpreter: python benchmarks/startup.py [rounds]"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "vaekit --help": [sys.executable, "-m", "vaekit", "--help"],
    "vaekit train --help": [sys.executable, "-m", "vaekit", "train", "--help"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
}


def seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def main(rounds: int) -> None:
    seen: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            seen[name].append(seconds(command))
    for name, times in seen.items():
        print(
            f"{name:<26} {statistics.median(times):6.2f} s (median of {rounds}, {min(times):.2f} to {max(times):.2f})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
