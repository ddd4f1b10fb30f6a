"""vaekit: train a variational autoencoder on a folder of images, and generate new images.

import vaekit
vae = vaekit.train("photos/", epochs=50)
images = vae.sample(16, seed=0)
"""

from typing import TYPE_CHECKING, Any

from vaekit.version import VERSION

if TYPE_CHECKING:
    from vaekit.api import load as load
    from vaekit.api import train as train
    from vaekit.trained_model import TrainedModel as TrainedModel

__version__ = VERSION
__all__ = ["TrainedModel", "__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    """`train`, `load` and `TrainedModel` come from `vaekit.api`, which imports torch: only when they are
    used."""
    if name in ("train", "load", "TrainedModel"):
        from vaekit import api

        return getattr(api, name)
    raise AttributeError(f"module 'vaekit' has no attribute {name!r}")
