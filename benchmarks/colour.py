"""Which model is worth most per minute on colour images: bits/dim and sharpness of candidates, a few minutes each.

    python benchmarks/colour.py cifar10.npz 5            # images, minutes each
    python benchmarks/colour.py cifar10.npz 5 wide flow  # some of the candidates

Bits/dim are those of the negative ELBO on the validation side; PSNR is that of its reconstructions, in decibels; the
runs stay in runs/colour/ to be looked at.
"""

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaekit
from vaekit.data.pack import open_pack
from vaekit.settings import Data

WIDE: dict[str, Any] = {"latents": 128}
CANDIDATES: dict[str, dict[str, Any]] = {
    "sigma-vae": {},
    "wide": WIDE,
    "optimal": WIDE | {"likelihood": {"sigma": "optimal"}},
    "pixel": WIDE | {"likelihood": {"sigma": "pixel"}},
    "laplace": WIDE | {"likelihood": "laplace"},
    "mixture": WIDE | {"likelihood": "logistic_mixture"},
    "flow": WIDE | {"prior": "flow"},
    "resnet": WIDE | {"encoder": "resnet", "decoder": "resnet"},
    "silu": WIDE | {"encoder": {"activation": "silu"}, "decoder": {"activation": "silu"}},
}


def main() -> None:
    data, minutes, *names = sys.argv[1:]
    images = open_pack(data, Data())
    held_out = np.asarray(images.images[images.sides["validation"]])[:1000]
    for name in names or CANDIDATES:
        folder = Path("runs/colour") / name
        shutil.rmtree(folder, ignore_errors=True)
        model = vaekit.train(
            data,
            preset="sigma-vae",
            out=folder,
            max_minutes=float(minutes),
            epochs=1000,
            threads=torch.get_num_threads(),
            quiet=True,
            **CANDIDATES[name],
        )
        history = model.history
        bits = history["val_loss"].min() / math.prod(model.shape) / math.log(2)
        error = np.square((model.reconstruct(held_out) / 255.0) - held_out / 255.0).mean()
        print(
            f"{name:<10}  {len(history):>3} epochs  {bits:.3f} bits/dim  PSNR {-10 * math.log10(error):.2f} dB  "
            f"KL {history['val_kl'].iloc[-1]:.0f} nats",
            flush=True,
        )


if __name__ == "__main__":
    main()
