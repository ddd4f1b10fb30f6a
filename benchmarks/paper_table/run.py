"""Train and evaluate one row of the table of published likelihoods, and write the result as JSON.

    python benchmarks/paper_table/run.py burda-vae mnist/    # a row, a folder with MNIST's four IDX files

Protocol: 28x28 images; the first 50,000 train, dynamically binarized, the next 10,000 validate; the 10,000
test images are binarized once (`numpy.random.RandomState(777).rand(10000, 784) < x`); factorised Bernoulli
decoder, no augmentation; NLL by importance sampling in float32. The weights with the best validation loss are
evaluated; the test images choose nothing. `rows/` has the settings of each row, `results/` the results;
`tools/docs/published.py` writes the page.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import vaekit
from vaekit.config.data import DataConfig
from vaekit.data.packs.pack import open_pack
from vaekit.models.builder import build
from vaekit.runs.metadata import read_metadata

HERE = Path(__file__).parent


def draw_test_pixels(gray: np.ndarray) -> np.ndarray:
    """The binarized test images of the protocol, uint8 [N, 28, 28]."""
    share = gray.reshape(len(gray), 784) / 255
    white = np.random.RandomState(777).rand(len(gray), 784) < share
    return (255 * white).astype(np.uint8).reshape(-1, 28, 28)


def flops_per_step(config: Any, shape: tuple[int, int, int], images: int) -> int:
    """Floating-point operations of one training step, forward and backward, as torch counts them."""
    model, objective = build(config, shape, images=images)
    with FlopCounterMode(display=False) as counter:
        objective(model.terms(torch.rand(config.training.batch_size, *shape), samples=objective.samples))[
            0
        ].backward()
    return int(counter.get_total_flops())


def training_record(model: vaekit.TrainedModel, train_images: slice) -> dict[str, Any]:
    """How the model was trained, on what hardware, and with how many operations."""
    metadata, history = read_metadata(model.run), model.history
    device = metadata.device
    if device == "cpu":
        device = "cpu, 1 thread" if metadata.threads == 1 else f"cpu, {metadata.threads} threads"
    per_step = flops_per_step(model.config, model.shape, train_images.stop)
    return {
        "best_validation_loss": float(history["val_loss"].min()),
        "best_epoch": int(history["val_loss"].argmin()) + 1,
        "epochs": len(history),
        "train_images": train_images.stop - train_images.start,
        "train_seconds": round(float(history["seconds"].sum()), 1),
        "flops_per_step": per_step,
        "flops": per_step * int(history["step"].max()),
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "device": device,
        "cores": os.cpu_count(),
        "versions": metadata.versions | {"system": platform.system()},
        "config": model.config.model_dump(),
    }


def evaluation_record(model: vaekit.TrainedModel, test: np.ndarray, samples: int) -> dict[str, Any]:
    evaluation = model.evaluate(test, samples=samples)
    assert evaluation["images"] == len(test), "a duplicate test image was left out"
    likelihood = evaluation["likelihood"]
    seeds = {"training": model.config.training.seed, "evaluation": evaluation["seed"], "test_pixels": 777}
    return {
        "samples": samples,
        "seeds": seeds,
        "images": evaluation["images"],
        "active_units": evaluation["latents"]["active"],
        **{name: likelihood[name] for name in ("nll", "nll_standard_error", "elbo", "effective_sample_size")},
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", help="name of a file in rows/")
    parser.add_argument("mnist", type=Path, help="folder with the four IDX files of MNIST")
    parser.add_argument("--run", type=Path, help="run folder to keep; resumed if it exists")
    parser.add_argument("--epochs", type=int, help="fewer epochs than in the row, for a trial")
    parser.add_argument("--images", type=int, help="evaluate on the first test images only")
    parser.add_argument("--samples", type=int, help="importance samples per image")
    parser.add_argument("--out", type=Path, help="JSON file to write; default: results/ROW.json")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    row = tomllib.loads((HERE / "rows" / f"{options.row}.toml").read_text())
    settings, protocol = row["settings"], row["evaluation"]
    if options.epochs:
        settings["epochs"] = options.epochs
    images, samples = options.images or protocol["images"], options.samples or protocol["samples"]
    folder = options.run or Path(tempfile.mkdtemp()) / options.row
    start = time.perf_counter()
    model = vaekit.train(options.mnist, out=folder, resume=True, preset=row["preset"], **settings)
    trained = time.perf_counter()
    pack = open_pack(options.mnist, DataConfig(validation=settings["validation"]))
    test = draw_test_pixels(np.asarray(pack.images[pack.splits["test"]])[..., 0])[:images]
    assert len(test) == images, f"{len(test)} test images, not {images}"
    result = {
        "row": options.row,
        "about": row["about"],
        "paper": row["paper"],
        "published_nll": row.get("published"),
        "target_nll": row["target"],
        "target_minutes": row["minutes"],
        "preset": row["preset"],
        **evaluation_record(model, test, samples),
        **training_record(model, pack.splits["train"]),
        "whole_command_seconds": round(trained - start, 1),
        "evaluate_seconds": round(time.perf_counter() - trained, 1),
    }
    out = options.out or HERE / "results" / f"{options.row}.json"
    out.write_text(json.dumps(result, indent=2) + "\n")
    if options.run is None:
        shutil.rmtree(folder.parent)
    minutes = result["train_seconds"] / 60
    nll = f"{result['nll']:.2f} +- {result['nll_standard_error']:.2f}"
    print(f"{options.row}: NLL {nll}, trained in {minutes:.1f} min")
    print(f"Wrote {out}")


if __name__ == "__main__":
    main()
