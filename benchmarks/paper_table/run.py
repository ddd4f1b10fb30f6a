"""Train and judge one row of the table of published likelihoods, and write what came out as JSON.

    python benchmarks/paper_table/run.py burda-vae mnist/            # a row, a folder with MNIST's four IDX files

Protocol: 28x28 images, the first 50,000 train with pixels drawn anew at every step, the next 10,000 validate, the
10,000 test images are drawn once (`numpy.random.RandomState(777).rand(10000, 784) < x`); factorised Bernoulli decoder,
no augmentation; NLL by importance sampling in float32. The weights judged are those with the best validation loss; the
test images choose nothing. `rows/` has a file of settings a row; `results/` what was found; `table.py` makes the page.
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


def deterministic_binarize(gray: np.ndarray) -> np.ndarray:
    """The test images as the protocol has them: black or white, uint8 [N, 28, 28]."""
    share = gray.reshape(len(gray), 784) / 255
    white = np.random.RandomState(777).rand(len(gray), 784) < share
    return (255 * white).astype(np.uint8).reshape(-1, 28, 28)


def flops_of_a_step(config: Any, shape: tuple[int, int, int], images: int) -> int:
    """Floating-point operations of one training step, forward and backward, as torch counts them."""
    model, objective = build(config, shape, images=images)
    with FlopCounterMode(display=False) as counter:
        objective(model.terms(torch.rand(config.training.batch_size, *shape), samples=objective.samples))[0].backward()
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", help="name of a file in rows/")
    parser.add_argument("mnist", type=Path, help="folder with the four IDX files of MNIST")
    parser.add_argument("--run", type=Path, help="keep the run in this folder, and go on with it if it is there")
    parser.add_argument("--epochs", type=int, help="fewer epochs than the row has, for a trial")
    parser.add_argument("--images", type=int, help="judge the first so many test images")
    parser.add_argument("--samples", type=int, help="importance samples of every image")
    parser.add_argument("--out", type=Path, help="JSON file to write; default: results/ROW.json")
    asked = parser.parse_args()

    row = tomllib.loads((HERE / "rows" / f"{asked.row}.toml").read_text())
    settings, judged = row["settings"], row["judged"]
    if asked.epochs:
        settings["epochs"] = asked.epochs
    images, samples = asked.images or judged["images"], asked.samples or judged["samples"]
    folder = asked.run or Path(tempfile.mkdtemp()) / asked.row
    begun = time.perf_counter()
    model = vaekit.train(asked.mnist, out=folder, resume=True, preset=row["preset"], **settings)
    elapsed = time.perf_counter() - begun

    pack = open_pack(asked.mnist, DataConfig(validation=settings["validation"]))
    rows = pack.splits["test"]
    test = deterministic_binarize(np.asarray(pack.images[rows])[..., 0])[:images]
    assert len(test) == images, f"{len(test)} test images, not {images}"
    begun = time.perf_counter()
    found = model.evaluate(test, samples=samples)
    assert found["images"] == images, "a copy among the test images was left out"
    metadata, history = read_metadata(model.run), model.history
    per_step = flops_of_a_step(model.config, model.shape, pack.splits["train"].stop)
    result = {
        "row": asked.row,
        "about": row["about"],
        "paper": row["paper"],
        "published_nll": row.get("published"),
        "target_nll": row["target"],
        "target_minutes": row["minutes"],
        "nll": found["nll"],
        "nll_standard_error": found["nll_standard_error"],
        "elbo": found["elbo"],
        "images": images,
        "samples": samples,
        "effective_sample_size": found["effective_sample_size"],
        "active_units": found["active_units"],
        "best_validation_loss": float(history["val_loss"].min()),
        "best_epoch": int(history["val_loss"].argmin()) + 1,
        "epochs": len(history),
        "train_images": pack.splits["train"].stop - pack.splits["train"].start,
        "train_seconds": round(float(history["seconds"].sum()), 1),
        "whole_command_seconds": round(elapsed, 1),
        "evaluate_seconds": round(time.perf_counter() - begun, 1),
        "flops_per_step": per_step,
        "flops": per_step * int(history["step"].max()),
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "seeds": {"training": model.config.training.seed, "evaluation": found["seed"], "test_pixels": 777},
        "device": metadata.device
        if metadata.device != "cpu"
        else f"cpu, {metadata.threads} thread{'s' * (metadata.threads > 1)}",
        "cores": os.cpu_count(),
        "versions": metadata.versions | {"system": platform.system()},
        "preset": row["preset"],
        "config": model.config.model_dump(),
    }
    out = asked.out or HERE / "results" / f"{asked.row}.json"
    out.write_text(json.dumps(result, indent=2) + "\n")
    if asked.run is None:
        shutil.rmtree(folder.parent)
    print(
        f"{asked.row}: NLL {found['nll']:.2f} +- {found['nll_standard_error']:.2f}, "
        f"trained in {result['train_seconds'] / 60:.1f} min"
    )
    print(f"Wrote {out}")


if __name__ == "__main__":
    main()
