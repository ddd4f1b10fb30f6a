"""Write docs/quality.md, and its pictures, from benchmarks/results/folders.json.

python tools/docs/quality.py          # the page
python tools/docs/quality.py OUT      # also the pictures, from OUT of benchmarks/folders/run.py
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaekit.plots import grids

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "folders.json"
PAGE = ROOT / "docs" / "quality.md"
PICTURES = ROOT / "docs" / "pictures" / "quality"
TITLES = {
    "emoji": "emoji: 3,000 drawings of 64x64 in ten classes",
    "clipart": "clipart: 6,400 drawings of 64x64 in 24 classes",
    "photos": "photos: 2,400 crops of 30 photographs, 64x64",
    "cifar10": "CIFAR-10: 50,000 photographs of 32x32 in ten classes",
    "fashion-mnist": "Fashion-MNIST: 60,000 gray images of 28x28 in ten classes",
}
CONTESTANTS = ("vaekit", "vaekit-0.1.0", "pythae", "denoising-diffusion-pytorch", "lightweight-gan")
HEAD = """# Quality of new images, per minute

Every contestant trains on the same PNG files for the same time on two processor cores; its images are
then compared with held-out images that none has seen. KID and coverage compare new images with as many
held-out ones, in the features of EfficientNet-Lite0, which no contestant trains with; they are not
comparable with published values. KID is a distance, here times 1,000: lower is better. `+-` is half the
95 % interval. PSNR and SSIM are those of reconstructions of held-out images. "Copies" is the share of
new images suspiciously near to a training image; 0.02 is expected by chance. "Took" is the time of the
whole command, from start to report. What is not listed has not been measured yet.
"""
ABOUT = {
    "vaekit": "the default for the images, with `--minutes`",
    "vaekit-0.1.0": "the default of version 0.1.0, with `--max-minutes`",
    "pythae": "its default VAE",
    "denoising-diffusion-pytorch": "a U-Net of 32 channels, sampled in 20 steps (its README has "
    "more of both), compared by 128 images",
    "lightweight-gan": "the settings of its command line",
}
"""What a contestant is; the page names those that were measured."""
RATE = "The learning rate of flow matching was 0.001 in these; it is 0.002 since."
NOTES = {
    "5": RATE,
    "20": "Other programs ran beside these trainings, some of which were paused. They have as many steps as"
    " 20 minutes of both cores have without: those that `vaekit` planned at the start and before its "
    "second stage, and of 0.1.0 four times the epochs of 5 minutes. What they took is longer for "
    "that. Of CIFAR-10 and Fashion-MNIST, 0.1.0 stopped by the clock beside other programs, after 50 "
    "and 70 epochs; in the last five its validation loss fell by 2.9 % and 0.03 %. The learning rate "
    "of flow matching was 0.002 there, and 0.001 for the other folders.",
}
"""By minutes, how the trainings differed from the command below."""
TAIL = """
```console
$ python benchmarks/folders/prepare.py SOURCES FOLDERS
$ python benchmarks/folders/run.py FOLDERS OUT --minutes 5 --old OLD/src \\
    --peers PEERS/bin/python
$ python tools/docs/quality.py OUT
```
"""


def cell(interval: dict[str, float] | None, factor: float = 1, digits: int = 0) -> str:
    if interval is None:
        return ""
    half = (interval["high"] - interval["low"]) / 2 * factor
    return f"{interval['value'] * factor:.{digits}f} +- {half:.{digits}f}"


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def table(of_folder: dict[str, Any], minutes: str) -> list[str]:
    lines = [
        "| contestant | KID x 1000 | coverage | precision | recall | PSNR, dB | SSIM | LPIPS | copies "
        "| took, s |\n|---|---|---|---|---|---|---|---|---|---|",
    ]
    for contestant in CONTESTANTS:
        if (m := of_folder.get(contestant, {}).get(minutes)) is None:
            continue
        cells = [f"`{contestant}`", cell(m["kid"], 1000)]
        cells += [cell(m[name], digits=3) for name in ("coverage", "precision", "recall")]
        cells += [number(m.get("psnr"), 2), number(m.get("ssim"), 3), number(m.get("lpips"), 3)]
        cells += [number(m["copied"], 3), number(m.get("seconds"), 0)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ratios(results: dict[str, Any], minutes: str) -> str:
    """Medians over folders of this version against 0.1.0."""
    pairs = [
        (of_folder["vaekit"][minutes], of_folder["vaekit-0.1.0"][minutes])
        for of_folder in results.values()
        if minutes in of_folder.get("vaekit", {}) and minutes in of_folder.get("vaekit-0.1.0", {})
    ]
    if not pairs:
        return ""
    kid, coverage = (
        statistics.median(new[name]["value"] / old[name]["value"] for new, old in pairs)
        for name in ("kid", "coverage")
    )
    over = f"medians over {len(pairs)} folders" if len(pairs) > 1 else "one folder"
    psnr = statistics.median(new["psnr"] - old["psnr"] for new, old in pairs)
    return f"Against 0.1.0, {over}: KID {kid:.2f} times, coverage {coverage:.2f} times, PSNR {psnr:+.1f} dB."


def sheet(out: Path, name: str, minutes: str, contestants: list[str]) -> None:
    """Contact sheets side by side, titled by contestant."""
    sheets = [
        grids.grid(np.load(out / name / contestant / minutes / "new.npy")[:40], 5, title=contestant)
        for contestant in contestants
    ]
    size = (sum(one.width for one in sheets), max(one.height for one in sheets))
    combined, left = Image.new("RGB", size, grids.PAPER), 0
    for one in sheets:
        combined.paste(one, (left, 0))
        left += one.width
    PICTURES.mkdir(parents=True, exist_ok=True)
    combined.quantize(256).save(PICTURES / f"{name}-{minutes}.png", optimize=True)


def main() -> None:
    results = json.loads(RESULTS.read_text())
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    lines = HEAD.splitlines()
    every = {minutes for of_folder in results.values() for each in of_folder.values() for minutes in each}
    measured = {contestant for of_folder in results.values() for contestant in of_folder}
    lines += ["", *(f"- `{name}`: {text}." for name, text in ABOUT.items() if name in measured)]
    for minutes in sorted(every, key=float):
        lines += [
            "",
            f"## After {minutes} minutes",
            "",
            *filter(None, (ratios(results, minutes), NOTES.get(minutes))),
        ]
        for name, title in TITLES.items():
            of_folder = results.get(name, {})
            contestants = [c for c in CONTESTANTS if minutes in of_folder.get(c, {})]
            if not contestants:
                continue
            if out is not None:
                sheet(out, name, minutes, contestants)
            lines += ["", f"### {title}", "", *table(of_folder, minutes), ""]
            lines.append(f"![New images of {', '.join(contestants)}](pictures/quality/{name}-{minutes}.png)")
    PAGE.write_text("\n".join(lines) + "\n" + TAIL, encoding="utf-8")
    print(f"Wrote {PAGE}")


if __name__ == "__main__":
    main()
