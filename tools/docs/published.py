"""Write docs/published.md from benchmarks/paper_table; with --check only say whether it is up to date.

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
TEST_IMAGES = 10_000
"""Test images of the protocol."""
SAMPLES = 5000
"""Importance samples of the protocol."""
ORDER = ("burda-vae", "mlp", "burda-iwae-5", "burda-iwae-50", "vamp", "resnet")

HEAD = """# Published likelihoods

Each row is a model from the literature, trained by vaekit from a file of settings and evaluated as in the
papers. Protocol: MNIST, 28x28; the first 50,000 images train, binarized at every step; the next 10,000
validate; the 10,000 test images are binarized once, `numpy.random.RandomState(777).rand(10000, 784) < x`. A
factorised Bernoulli decoder, no augmentation. NLL is the negative importance-weighted bound in nats per
image; lower is better. `+-` is the standard error of the mean over the test images, which are the same for
all models. All choices were made on the validation images.

"""
FOOT = """
`python benchmarks/paper_table/run.py ROW mnist/` reproduces a row. Its settings are in
`benchmarks/paper_table/rows/`; everything recorded (configuration, seeds, seconds, floating-point operations,
effective sample sizes) is in `results/`. This page is written by `python tools/docs/published.py`. Training
time includes validation and pictures.
"""


def line(row: dict[str, Any], result: dict[str, Any] | None) -> str:
    """A row of the table."""
    published = f"{row['published']:.2f}" if "published" in row else "-"
    target = f"{row['target']:.2f} in {row['minutes']} min"
    if result is None:
        return f"| {row['about']} | {published} | {target} | not measured yet | | | |"
    verdict = "missed"
    if result["nll"] <= row["target"]:
        verdict = "reached" if result["train_seconds"] <= 60 * row["minutes"] else "missed: too slow"
    if result["images"] != TEST_IMAGES or result["samples"] != SAMPLES:
        verdict = f"{verdict}; first {result['images']:,} test images, {result['samples']:,} samples"
    cells = [
        row["about"],
        published,
        target,
        f"**{result['nll']:.2f}** +- {result['nll_standard_error']:.2f} ({verdict})",
        f"{result['train_seconds'] / 60:.0f} min, {result['device']}",
        f"{result['flops'] / 1e15:.2f}",
        f"{result['active_units']} of {result['config']['latents']}",
    ]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    rows = {name: tomllib.loads((HERE / "rows" / f"{name}.toml").read_text()) for name in ORDER}
    results = {path.stem: json.loads(path.read_text()) for path in (HERE / "results").glob("*.json")}
    columns = ("model", "published", "target here", "NLL measured", "training", "PFLOP", "active latents")
    table = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    table += [line(row, results.get(name)) for name, row in rows.items()]
    notes = [
        textwrap.fill(
            f"- *{row['about']}* ({row['paper']}). {row.get('note', '')}", 110, subsequent_indent="  "
        )
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
