"""Private memory of a training from 10,000 and from 1,000,000 synthetic images of 32x32.

    python benchmarks/memory.py [FOLDER]       # writes benchmarks/results/memory.json

FOLDER is a scratch folder with 7 GB free. RssAnon, from /proc (Linux), is the memory that the process has
allocated, without mapped files, which the system can drop at any time.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

STEPS = 2000
SETTINGS = {
    "encoder": {"kind": "mlp", "hidden": "64"},
    "decoder": {"kind": "mlp", "hidden": "64"},
    "latents": 8,
    "batch_size": 128,
    "flip": True,
    "crop": 2,
}
RESULTS = Path(__file__).parent / "results" / "memory.json"


def measure(images: str) -> None:
    """Pack, train, validate; print the largest RssAnon in kB. Runs in a new process."""
    import torch

    from vaekit.bench.loops import training_process
    from vaekit.config.overrides import resolve
    from vaekit.data.loader import ImageLoader
    from vaekit.data.packs.pack import open_pack
    from vaekit.models.builder import build
    from vaekit.training.loop import Progress, evaluate, train
    from vaekit.training.step import TrainStep

    config = resolve(SETTINGS, {"precision": "32", "compile": "off"})
    pack = open_pack(images, config.data, quiet=True)
    model, objective = build(config, pack.shape)
    loader = ImageLoader(pack, config.data, 128, 0, torch.device("cpu"))
    train_step, progress = TrainStep(model, objective, config.training, loader.steps_per_epoch), Progress()
    largest = 0

    def look(_: torch.Tensor) -> bool:
        nonlocal largest
        if progress.step % 20 == 0:
            largest = max(largest, private_memory())
        return progress.step >= STEPS

    with training_process():
        for _ in train(train_step, loader, config.training.epochs, progress, look):
            pass
        evaluate(train_step, loader, "validation")
        print(max(largest, private_memory()))


def private_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise OSError("no RssAnon in /proc/self/status")


def main(scratch: Path) -> None:
    os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
    kilobytes = {}
    for count in (10_000, 1_000_000):
        path = scratch / f"{count}.npy"
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 32, 32, 3))
        rng = np.random.default_rng(count)
        for start in range(0, count, 10_000):
            images[start : start + 10_000] = rng.integers(0, 256, (10_000, 32, 32, 3), np.uint8)
        del images
        command = [sys.executable, __file__, "--measure", str(path)]
        for run in ("first run, packs", "second run"):
            process = subprocess.run(command, check=True, capture_output=True, text=True)
            kilobytes[count] = int(process.stdout)
            print(f"{count:>9,} images, {run:16}: RssAnon {kilobytes[count] / 1e3:6.1f} MB", flush=True)
    print(f"ratio of the second runs: {kilobytes[1_000_000] / kilobytes[10_000]:.3f}")
    RESULTS.write_text(json.dumps(kilobytes, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2])
    else:
        with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
            main(Path(folder))
