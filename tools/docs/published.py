"""Write docs/published.md from the files in rows/ and results/; with --check only say whether it is up to date.

python tools/docs/published.py
"""

import json
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = ROOT / "benchmarks" / "paper_table"
PAGE = ROOT / "docs" / "published.md"
ORDER = ("burda-vae", "mlp", "burda-iwae-5", "burda-iwae-50", "vamp", "resnet")

HEAD = """# Published likelihoods, met or missed

Each row is a model of the literature trained by vaekit from a file of settings, and judged as the papers judge. The
protocol: MNIST, 28x28; the first 50,000 images train, their pixels drawn black or white anew at every step; the next
10,000 validate; the 10,000 test images are drawn once, `numpy.random.RandomState(777).rand(10000, 784) < x`. A
factorised Bernoulli decoder, no augmentation. NLL is minus the importance-weighted bound in nats per image, lower is
better; `+-` is the standard error of the mean over the test images, which all models here share. What was chosen, was
chosen on validation.

"""
FOOT = """
`python benchmarks/paper_table/run.py ROW mnist/` makes a row again. Its settings are in `benchmarks/paper_table/rows/`;
all that was recorded (configuration, seeds, seconds, floating-point operations, effective sample sizes) is in
`results/`. This page is written by `python tools/docs/published.py`. The time is that of training, validation
and pictures included.
"""


def line(name: str, row: dict[str, Any], found: dict[str, Any] | None) -> str:
    published = f"{row['published']:.2f}" if "published" in row else "-"
    aim = f"{row['target']:.2f} in {row['minutes']} min"
    if found is None:
        return f"| {row['about']} | {published} | {aim} | not measured yet | | | |"
    in_time = found["train_seconds"] <= 60 * row["minutes"]
    verdict = ("reached" if in_time else "missed: too slow") if found["nll"] <= row["target"] else "missed"
    judged = (
        ""
        if found["images"] == 10_000 and found["samples"] == 5000
        else (f"; first {found['images']:,} test images, {found['samples']:,} samples")
    )
    return (
        f"| {row['about']} | {published} | {aim} | **{found['nll']:.2f}** +- {found['nll_standard_error']:.2f}{judged} "
        f"({verdict}) | {found['train_seconds'] / 60:.0f} min, {found['device']} "
        f"| {found['flops'] / 1e15:.2f} | {found['active_units']} of {found['config']['latents']} |"
    )


def page() -> str:
    rows = {name: tomllib.loads((HERE / "rows" / f"{name}.toml").read_text()) for name in ORDER}
    results = {path.stem: json.loads(path.read_text()) for path in (HERE / "results").glob("*.json")}
    columns = ("model", "published", "to reach here", "NLL found", "training", "PFLOP", "active latents")
    table = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    table += [line(name, row, results.get(name)) for name, row in rows.items()]
    notes = [
        textwrap.fill(f"- *{row['about']}* ({row['paper']}). {row.get('note', '')}", 120, subsequent_indent="  ")
        for row in rows.values()
    ]
    return HEAD + "\n".join([*table, "", *notes, ""]) + FOOT


def main() -> int:
    if "--check" in sys.argv:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    print(f"Wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
