"""Training on an NVIDIA GPU: images per second, how busy the GPU is, what share of its peak is used, and a
whole run.

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
REPEATS = 3


def peak(dtype: torch.dtype, tf32: bool = False) -> float:
    """TFLOP/s of a product of two random 8192x8192 matrices."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(8192, 8192, device=GPU, dtype=dtype) for _ in range(2))
    teraflops = []
    for _ in range(8):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        teraflops.append(2 * 8192**3 / (time.perf_counter() - start) / 1e12)
    torch.backends.cuda.matmul.allow_tf32 = False
    return statistics.median(teraflops[2:])


def measure_load(run_once: RunOnce) -> tuple[float, float, float]:
    """Images per second, the share of the time in which a kernel runs, and kernels per image."""
    run_once()
    speeds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        count = run_once()
        speeds.append(count / (time.perf_counter() - start))
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        count = run_once()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if str(event.device_type) == "DeviceType.CUDA" and not event.is_user_annotation
    )
    total, end = 0.0, 0.0
    for begin, stop in spans:
        total += max(0.0, stop - max(begin, end))
        end = max(end, stop)
    speed = statistics.median(speeds)
    return speed, total / 1e6 * speed / count, len(spans) / count


def measure_network(name: str) -> dict[str, Any]:
    setup = NETWORKS[name]
    images = training_images(setup, photo)
    config, pack = training_pack(setup, np.concatenate([images] * 4) if setup.size else images)
    model, _ = make_model(config, pack, GPU)
    size = int(config.training.batch_size)
    with FlopCounterMode(display=False) as counter:
        plain_loss(model, torch.rand(size, *pack.shape, device=GPU)).backward()
    operations = counter.get_total_flops() / size
    runs_once = {"bare loop": bare_loop(config, pack, GPU)}
    runs_once |= {f"vaekit, {p}": vaekit_loop(config, pack, GPU, precision=p) for p in ("32", "tf32", "bf16")}
    if has_pythae():
        runs_once[PYTHAE] = pythae_loop(config, pack, GPU)
    results: dict[str, Any] = {}
    for loop, run_once in runs_once.items():
        speed, share, kernels = measure_load(run_once)
        results[loop] = {
            "images_per_second": speed,
            "busy": share,
            "kernels_per_step": kernels * size,
            "tflops": operations * speed / 1e12,
        }
        row = results[loop]
        print(
            f"{name:<7}{loop:<14}{speed:>12,.0f} images/s  step {1e6 * size / speed:>7,.0f} us  "
            f"busy {share:>6.1%}  {row['kernels_per_step']:>5.0f} kernels/step  {row['tflops']:.2f} TFLOP/s",
            flush=True,
        )
    return results


def train_classic(folder: Path) -> dict[str, Any]:
    """Seconds of `vaekit train FOLDER --preset classic --epochs 50`, and its last row of metrics."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        start = time.perf_counter()
        settings = ["--preset", "classic", "--epochs", "50", "--out", str(out)]
        command = [sys.executable, "-m", "vaekit", "train", str(folder), *settings]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(process.stderr)
        print(f"{seconds:.1f} s")
        lines = (out / "log.txt").read_text().splitlines()
        print("\n".join(line for line in lines if " epoch " not in line), *lines[-4:], sep="\n", flush=True)
        rows = (out / "metrics.csv").read_text().splitlines()
        print(rows[0], *rows[-2:], sep="\n", flush=True)
        return {"seconds": seconds, "last": dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with the four IDX files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine()}
    results["peak"] = {
        "float32": peak(torch.float32),
        "TF32": peak(torch.float32, tf32=True),
        "bfloat16": peak(torch.bfloat16),
    }
    print(results["peak"], flush=True)
    results["networks"] = {name: measure_network(name) for name in NETWORKS}
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    results["run"] = train_classic(options.folder)
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
