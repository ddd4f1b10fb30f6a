"""How long vaekit takes to start: python benchmarks/startup.py [rounds]

`vaekit --help` against a bare interpreter; and a second `vaekit train` on the bundled sample, up to its first
optimizer step, against a process that imports torch, builds an Adam and takes one step. All run in turn.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEP = "import os, torch; w = torch.nn.Linear(784, 400); o = torch.optim.Adam(w.parameters(), fused=True); "
STEP += "w(torch.rand(128, 784)).sum().backward(); o.step(); os._exit(0)"
FIRST = """
import os, sys
import vaekit.training.loop as loop
from vaekit.cli import main
loop.MetricSums.add = lambda *_: os._exit(0)  # called after every step of a run, not in speed trials
main(sys.argv[1:])
"""
RESULTS = Path(__file__).parent / "results" / "startup.json"


def seconds(command: list[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        python = sys.executable
        commands = {
            "python -c pass": [python, "-c", "pass"],
            "vaekit --help": [python, "-m", "vaekit", "--help"],
            "vaekit train --help": [python, "-m", "vaekit", "train", "--help"],
            "import torch, one step of Adam": [python, "-c", STEP],
            "vaekit train, to its first step": [python, "-c", FIRST, "train"],
        }
        for command in commands.values():
            seconds(command, folder)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(seconds(command, folder))
    for name, values in times.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:<32} {statistics.median(values):6.2f} s ({spread} in {rounds} rounds)")
    step, first = (times[name] for name in list(commands)[-2:])
    ratio = statistics.median(b / a for a, b in zip(step, first, strict=True))
    print(f"first step of vaekit train: {ratio:.2f} times the bare one")
    RESULTS.write_text(json.dumps(times, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
