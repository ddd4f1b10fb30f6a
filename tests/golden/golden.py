"""Small trainings that pin what vaekit computes: weights, metrics, files, images and evaluation.

    python tests/golden/golden.py write FOLDER         # train every case into FOLDER
    python tests/golden/golden.py compare FOLDER OTHER # name every number that is not the same, bit for bit

The runs beside this file were written by vaekit 0.1.0 (at "Show the clipped location of p(x | z)"). On
another processor results differ in their last bits, so `test_golden.py` compares them within a tolerance.
"""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import vaekit

HERE = Path(__file__).parent
EPOCHS = 12
ADDED = {"data.png"}
"""Files of a run that 0.1.0 did not write."""
MACHINE = {"threads": 1, "device": "cpu", "precision": "32", "compile": "off", "quiet": True}
SETTINGS: dict[str, Any] = {"epochs": EPOCHS, "batch_size": 16, "learning_rate": 5e-3, "ema": 0.9, "seed": 5}
SETTINGS |= {"validation": "last:24", **MACHINE}
SMALL_CONV = {"encoder": {"channels": 4, "hidden": [24]}, "decoder": {"channels": 4, "hidden": [24]}}
NARROW = {"encoder": {"channels": 4}, "decoder": {"channels": 4}}
GATED = {"kind": "gated_mlp", "hidden": [24]}
VAMP = {"prior": {"components": 8}, "encoder": GATED, "decoder": GATED}
CASES: dict[str, dict[str, Any]] = {
    "classic": {"preset": "classic", "latents": 4, **SMALL_CONV},
    "best": {"preset": "laplace", "latents": 6, **SMALL_CONV},
    "conditional": {"preset": "conditional", "latents": 4, **SMALL_CONV},
    "spatial": {"preset": "sigma-vae", "latents": "2x6x6", **NARROW},
    "vamp": {"preset": "vamp", "latents": 4, **VAMP},
}


def images(case: str) -> Any:
    """120 images 12x12 of two bars, by a formula: gray or in colour, with or without labels."""
    n = np.arange(120)[:, None, None, None]
    y, x, c = np.ogrid[:12, :12, : 3 if case in ("best", "spatial") else 1]
    bars = np.maximum(255 - 70 * abs(x - n % 12), 255 - 90 * abs(y - n * 5 % 11)).clip(0, 255)
    # whole numbers alone: the same on every processor
    pixels = (bars * (2 + (c + n) % 3) // 4).astype(np.uint8)
    return (pixels, np.arange(120) % 3) if case == "conditional" else pixels


def train(case: str, out: Path, **changes: Any) -> Any:
    return vaekit.train(images(case), out=out, **SETTINGS | CASES[case] | changes)


def results(case: str, model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a model computes: figures, and arrays."""
    given = images(case)
    shown, labels = (given[0][:6], given[1][:6]) if isinstance(given, tuple) else (given[:6], None)
    z = model.encode(shown, labels)
    arrays = {
        "sample": model.sample(6, seed=1),
        "sample_model_prior": model.sample(6, seed=1, prior="model"),
        "encode": z,
        "decode": model.decode(z, labels),
        "reconstruct": model.reconstruct(shown, labels),
        "log_likelihood": model.log_likelihood(shown, labels, samples=10),
        "interpolate": model.interpolate(shown[0], shown[3], steps=5, label=None if labels is None else 0),
    }
    history = model.history.drop(columns=["seconds", "images_per_second"])
    evaluation = model.evaluate(given, samples=20, new_images=50, quiet=True)
    figures = {"history": history.to_dict("list"), "evaluation": as_of_0_1_0(leaves(evaluation))}
    return json.loads(json.dumps(figures)), arrays


RENAMED = {
    "likelihood.effective_sample_size.min": "effective_sample_size.smallest",
    "likelihood.": "",
    "latents.total": "latents",
    "latents.active": "active_units",
    "latents.kl": "kl_per_latent",
    "same_dataset": "own",
    "reconstruction.": "reconstructions.",
    "training_reconstruction.": "learned.",
    "prior_gap.mutual_information_bound": "aggregate.mutual_information_at_most",
    "prior_gap.": "aggregate.",
    "memorization.": "memorisation.",
}
"""Places in evaluation.json of format 2, or their beginnings, and what 0.1.0 called them."""
NEW = {
    "format",
    "reconstructions.images",
    "aggregate.elbo",
    "aggregate.bits_per_dimension",
    "memorisation.copied_expected",
}
"""Numbers that 0.1.0 did not write, or that say nothing of what it computed."""


def as_of_0_1_0(numbers: dict[str, float]) -> dict[str, float]:
    """The numbers of an evaluation under the names of format 1."""
    renamed = {}
    for path, value in numbers.items():
        start = next((new for new in RENAMED if path.startswith(new)), "")
        old = RENAMED.get(start, "") + path.removeprefix(start)
        renamed[old.replace(".explained_variance", ".explained")] = value
    return {path: value for path, value in renamed.items() if path not in NEW}


def leaves(tree: Any, path: str = "") -> dict[str, float]:
    """The numbers of an evaluation by their place in it, but for its clock."""
    if isinstance(tree, (dict, list)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: value for key, one in items for name, value in leaves(one, f"{path}.{key}").items()}
    return {path[1:]: tree} if isinstance(tree, (int, float)) and path != ".seconds" else {}


def files(run: Path) -> list[str]:
    """The files of a run; how many checkpoints there are depends on the time that they take."""
    names = (path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    return sorted({re.sub(r"step_\d+", "step_N", name) for name in names} - ADDED)


def write(folder: Path) -> None:
    """Every case: its run, what its model computes, and the same after one more epoch."""
    for case in CASES:
        place = folder / case
        model = train(case, place / "run")
        figures, arrays = results(case, model)
        figures["files"] = files(place / "run")
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copytree(place / "run", Path(scratch) / "run")
            resumed = train(case, Path(scratch) / "run", resume=True, epochs=EPOCHS + 1)
            figures["resumed"] = resumed.history[["train_loss", "val_loss"]].to_dict("list")
        (place / "results.json").write_text(json.dumps(figures, indent=1) + "\n")
        np.savez_compressed(place / "arrays.npz", **arrays)


def numbers(place: Path) -> dict[str, Any]:
    """Everything that `write` left for a case, by name."""
    arrays: dict[str, Any] = {f"array {name}": array for name, array in np.load(place / "arrays.npz").items()}
    last = max((place / "run" / "checkpoints").iterdir())
    for file in (*(place / "run").glob("*.safetensors"), *last.glob("*.safetensors")):
        tensors = load_file(file)
        known = {name: tensor for name, tensor in tensors.items() if name.split(".")[-1] != "latent_scale"}
        arrays |= {f"{file.relative_to(place)} {name}": tensor for name, tensor in known.items()}
    results = json.loads((place / "results.json").read_text())
    results["evaluation"].pop("format", None)
    return arrays | {"results": results}


def compare(folder: Path, other: Path) -> int:
    """Print what differs; the number of differences."""
    differences = 0
    for case in CASES:
        one, two = numbers(folder / case), numbers(other / case)
        for name in sorted(one.keys() | two.keys()):
            same = name in one and name in two and np.array_equal(one[name], two[name])
            if not same:
                differences += 1
                print(f"{case}: {name} differs")
    print(f"{differences} differences")
    return differences


if __name__ == "__main__":
    verb, *folders = sys.argv[1:]
    if verb == "write":
        write(Path(folders[0]))
    else:
        sys.exit(compare(Path(folders[0]), Path(folders[1])) > 0)
