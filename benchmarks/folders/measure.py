"""Measure the new images and reconstructions of a contestant against held-out images.

    python benchmarks/folders/measure.py FOLDER OUT [OUT ...]

Writes OUT/metrics.json. New images are compared with as many held-out ones by `vaekit.evaluation.fidelity` in
the features of EfficientNet-Lite0, which no contestant trains with; every figure comes with its 95 %
interval. PSNR (mean over images), SSIM (Wang et al. 2004, 8-bit constants, Gaussian window) and LPIPS (VGG16,
Zhang et al. 2018) compare reconstructions with their images.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from vaekit.evaluation.features import load_efficientnet
from vaekit.evaluation.fidelity import compare
from vaekit.evaluation.memorization import memorization, nearest
from vaekit.models.perceptual import Lpips

MAX_IMAGES = 1000
MAX_LPIPS = 300
"""Reconstructions whose LPIPS is measured, which takes a twentieth of a second each."""


def reconstruction_metrics(images: np.ndarray, reconstructions: np.ndarray) -> dict[str, float]:
    x, seen = (torch.from_numpy(a).permute(0, 3, 1, 2).float() / 255 for a in (images, reconstructions))
    errors = (x - seen).square().flatten(1).mean(1).clamp(min=1e-10)
    ssim = structural_similarity_index_measure(seen, x, data_range=1.0)
    assert isinstance(ssim, torch.Tensor)
    pairs = zip(x[:MAX_LPIPS].split(50), seen[:MAX_LPIPS].split(50), strict=True)
    network = Lpips()
    with torch.no_grad():
        distances = torch.cat([network(a, b) for a, b in pairs])
    return {
        "psnr": (-10 * errors.log10()).mean().item(),
        "ssim": ssim.item(),
        "lpips": distances.mean().item(),
    }


def measure(folder: Path, out: Path, training: torch.Tensor) -> dict[str, Any]:
    held_out, new = np.load(folder / "held_out.npy"), np.load(out / "new.npy")
    count = min(len(held_out), len(new), MAX_IMAGES)
    extract = load_efficientnet()
    real, features = (extract(images[:count]) for images in (held_out, new))
    metrics = compare(real, features)
    result: dict[str, Any] = {"images": count, **metrics.model_dump(exclude={"fid", "density"})}

    near_new, near_held_out = (
        nearest(flat(images[:count]), training.split(1024)) for images in (new, held_out)
    )
    copies = memorization(near_new, near_held_out)
    result |= {"copied": copies.copied, "copied_by_chance": copies.copied_by_chance}
    if (out / "info.json").exists():
        result["seconds"] = json.loads((out / "info.json").read_text()).get("seconds")
    if (out / "reconstructions.npy").exists():
        result |= reconstruction_metrics(held_out, np.load(out / "reconstructions.npy"))
    return result


def flat(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).flatten(1).float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("outs", type=Path, nargs="+")
    options = parser.parse_args()
    training = flat(np.load(options.folder / "train.npy"))
    for out in options.outs:
        result = measure(options.folder, out, training)
        (out / "metrics.json").write_text(json.dumps(result))
        show = {k: v["value"] if isinstance(v, dict) else v for k, v in result.items()}
        print(out, {k: round(v, 4) if isinstance(v, float) else v for k, v in show.items()}, flush=True)


if __name__ == "__main__":
    main()
