"""A trained model, loaded from its run folder: what evaluation, reports, exports and the public API work
on."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from vaekit.config.config import Config
from vaekit.models.builder import build
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.terms import Objective
from vaekit.models.vae import VAE
from vaekit.runs.checkpoint import load_prior, load_weights
from vaekit.runs.folder import Run
from vaekit.runs.metadata import read_metadata
from vaekit.utils.device import resolve_device
from vaekit.utils.files import sha256


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model with its weights, on one device. Its networks are in evaluation mode and take no gradients."""

    run: Run
    config: Config
    vae: VAE
    """The tensor module: images [B, C, H, W] in [0, 1]."""
    objective: Objective
    shape: tuple[int, int, int]
    """(C, H, W) of its images."""
    classes: tuple[str, ...]
    """Names of the classes in its training data."""
    weights_hash: str
    """SHA-256 of the weights file, which training on replaces."""
    device: torch.device
    arrays: Any = field(default=None, repr=False)
    """The data that it was trained on, where they were given in memory by this process."""

    @cached_property
    def fitted_prior(self) -> FittedPrior | None:
        """The density fitted to its latents after training, where it beats the model's own prior.

        Raises:
            UserError: its file is damaged.
        """
        prior = load_prior(self.run, self.weights_hash)
        return None if prior is None else prior.to(self.device)

    def to(self, device: str | torch.device) -> "LoadedModel":
        """The same model on another device ("auto", "cpu", "cuda", "cuda:1", "mps"); this one is left where
        it is.

        Raises:
            UserError: this machine has no such device.
        """
        wanted = resolve_device(device)
        if wanted == self.device:
            return self
        return replace(self, vae=copy.deepcopy(self.vae).to(wanted), device=wanted)


def load_model(
    run: Run,
    networks: Mapping[str, nn.Module] = MappingProxyType({}),
    device: str | torch.device = "auto",
    arrays: Any = None,
) -> LoadedModel:
    """Load the model of a run folder.

    Args:
        run: the run.
        networks: the user's own "encoder" or "decoder", where it was trained with one.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1" or "mps".
        arrays: the data that it was trained on, where they were given in memory.

    Raises:
        UserError: no run there, a damaged one, or no such device.
    """
    wanted = resolve_device(device)
    metadata = read_metadata(run)
    config, shape, classes = metadata.config, metadata.shape, metadata.classes
    vae, objective = build(config, shape, len(classes), networks=networks)
    load_weights(vae, run.weights)
    vae = vae.to(wanted).eval().requires_grad_(False)
    return LoadedModel(run, config, vae, objective, shape, classes, sha256(run.weights), wanted, arrays)
