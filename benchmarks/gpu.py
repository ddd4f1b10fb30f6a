"""What an NVIDIA GPU does while vaekit trains: how much of the time it is at work, what share of its peak that is, and
a whole run from start to pictures.

    python benchmarks/gpu.py FASHION_MNIST_FOLDER [--out gpu.json]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from baselines import PYTHAE, has_pythae, pythae_loop
from photos import photo
from vaekit.bench.loops import bare_loop, make_model, plain_loss, vaekit_loop
from vaekit.bench.measure import RunOnce, machine
from vaekit.bench.workloads import NETWORKS, training_images, training_pack

GPU = torch.device("cuda")
TURNS = 3


def peak(kind: torch.dtype, tf32: bool = False) -> float:
    """TFLOP/s of a large product of random matrices."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(8192, 8192, device=GPU, dtype=kind) for _ in range(2))
    found = []
    for _ in range(8):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        found.append(2 * 8192**3 / (time.perf_counter() - begun) / 1e12)
    torch.backends.cuda.matmul.allow_tf32 = False
    return statistics.median(found[2:])


def busy(run_once: RunOnce) -> tuple[float, float, float]:
    """Images a second, the share of that time in which some kernel ran, and kernels an image."""
    run_once()
    speeds = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        count = run_once()
        speeds.append(count / (time.perf_counter() - begun))
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        count = run_once()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in seen.events()
        if str(event.device_type) == "DeviceType.CUDA" and not event.is_user_annotation
    )
    total, end = 0.0, 0.0
    for start, stop in spans:
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    speed = statistics.median(speeds)
    return speed, total / 1e6 * speed / count, len(spans) / count


def network(name: str) -> dict[str, Any]:
    chosen = NETWORKS[name]
    images = training_images(chosen, photo)
    config, pack = training_pack(chosen, np.concatenate([images] * 4) if chosen.size else images)
    model, _ = make_model(config, pack, GPU)
    size = int(config.training.batch_size)
    with FlopCounterMode(display=False) as counter:
        plain_loss(model, torch.rand(size, *pack.shape, device=GPU)).backward()
    operations = counter.get_total_flops() / size
    runs_once = {"bare loop": bare_loop(config, pack, GPU)}
    runs_once |= {f"vaekit, {p}": vaekit_loop(config, pack, GPU, precision=p) for p in ("32", "tf32", "bf16")}
    if has_pythae():
        runs_once[PYTHAE] = pythae_loop(config, pack, GPU)
    found: dict[str, Any] = {}
    for one, run_once in runs_once.items():
        speed, share, kernels = busy(run_once)
        found[one] = {
            "images_per_second": speed,
            "busy": share,
            "kernels_per_step": kernels * size,
            "tflops": operations * speed / 1e12,
        }
        row = found[one]
        print(
            f"{name:<7}{one:<14}{speed:>12,.0f} images/s  step {1e6 * size / speed:>7,.0f} us  busy {share:>6.1%}  "
            f"{row['kernels_per_step']:>5.0f} kernels a step  {row['tflops']:.2f} TFLOP/s",
            flush=True,
        )
    return found


def whole_run(folder: Path) -> dict[str, Any]:
    """`vaekit train FOLDER --preset classic --epochs 50`, from start to pictures."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        begun = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "vaekit",
            "train",
            folder,
            "--preset",
            "classic",
            "--epochs",
            "50",
            "--out",
            out,
        ]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        if done.returncode:
            sys.exit(done.stderr)
        print(f"{seconds:.1f} s")
        lines = (out / "log.txt").read_text().splitlines()
        print("\n".join(line for line in lines if " epoch " not in line), *lines[-4:], sep="\n", flush=True)
        rows = (out / "metrics.csv").read_text().splitlines()
        print(rows[0], *rows[-2:], sep="\n", flush=True)
        return {"seconds": seconds, "last": dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Fashion-MNIST's four IDX files")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    asked = parser.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    found["peak"] = {
        "float32": peak(torch.float32),
        "TF32": peak(torch.float32, tf32=True),
        "bfloat16": peak(torch.bfloat16),
    }
    print(found["peak"], flush=True)
    found["networks"] = {name: network(name) for name in NETWORKS}
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    found["run"] = whole_run(asked.folder)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
