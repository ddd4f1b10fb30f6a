"""Train vaekit on a folder and write its new images, with whichever version is on the path.

    python ours.py [--each] FOLDER OUT MARKS [-- SETTINGS OF vaekit train]

MARKS is a list such as 5,20,60: minutes of training, after each of which OUT/5/new.npy and
OUT/5/reconstructions.npy are written. With --each every mark is a training of its own, for versions whose
schedules depend on the time they are given.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

NEW_IMAGES = 1000


def write(run: Path, folder: Path, out: Path, training_seconds: float) -> None:
    import vaekit

    model = vaekit.load(run)
    held_out = np.load(folder / "held_out.npy")
    start = time.perf_counter()
    np.save(out / "new.npy", model.sample(NEW_IMAGES, seed=0))
    seconds = (time.perf_counter() - start) / NEW_IMAGES
    np.save(out / "reconstructions.npy", model.reconstruct(held_out))
    info = {"seconds": training_seconds, "seconds_per_new_image": seconds}
    (out / "info.json").write_text(json.dumps(info))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("marks", type=lambda text: sorted(float(part) for part in text.split(",")))
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--time", default="max-minutes", help="the flag for minutes")
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    size = np.load(options.folder / "held_out.npy", mmap_mode="r").shape[1]
    before = 0.0
    for minutes in options.marks:
        out = options.out / f"{minutes:g}"
        out.mkdir(parents=True, exist_ok=True)
        run = out / "run" if options.each else options.out / "run"
        command = [sys.executable, "-m", "vaekit", "train", str(options.folder / "train"), "--out", str(run)]
        if run.exists() and (run / "config.json").exists():
            command += ["--resume"]
        else:
            command += ["--size", str(size), *([] if options.each else ["--epochs", "100000"])]
            command += options.settings
        command += [f"--{options.time}", f"{minutes - (0 if options.each else before):g}"]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        print(f"{minutes:g} minutes: {seconds:.0f} s in all", flush=True)
        write(run, options.folder, out, seconds)
        before = minutes


if __name__ == "__main__":
    main()
