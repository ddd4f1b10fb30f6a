"""A trained model and what it came from, as the analyses see it."""

from typing import Any, Protocol, runtime_checkable

import torch

from vaekit.config.config import Config
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.terms import Objective
from vaekit.models.vae import VAE
from vaekit.runs.folder import Run

# --- data sets -------------------------------------------------------------------------------------------------------


@runtime_checkable
class LoadedModel(Protocol):
    """A trained model and what it came from: `api.TrainedModel`."""

    run: Run
    config: Config
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    model: VAE
    objective: Objective
    weights: str
    """SHA-256 of the file of its weights."""
    arrays: Any
    """What it was trained on, where that came from memory and is still there."""

    @property
    def fitted_prior(self) -> FittedPrior | None: ...

    def on_device(self) -> tuple[VAE, torch.device]:
        """A copy of the model where it computes fastest."""
