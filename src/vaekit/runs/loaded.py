"""A trained model, loaded from its run folder."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from vaekit.config.config import Config
from vaekit.data.sources.columns import Column
from vaekit.data.sources.conditions import width_of
from vaekit.models.builder import build
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.terms import Objective
from vaekit.models.vae import VAE
from vaekit.runs.checkpoint import limited_to_weights, load_prior, load_weights
from vaekit.runs.folder import Run
from vaekit.runs.metadata import read_metadata
from vaekit.utils.device import resolve_device
from vaekit.utils.files import sha256


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model with its weights on one device, in evaluation mode and without gradients."""

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
    """SHA-256 of the weights file."""
    device: torch.device
    columns: tuple[Column, ...] = ()
    """The columns of a table that it is conditioned on instead of classes."""
    arrays: Any = field(default=None, repr=False)
    """The training data, if this process gave them in memory."""

    @cached_property
    def fitted_prior(self) -> FittedPrior | FlowMatching | None:
        """The prior fitted to the latents after training; None if the model's own was better."""
        prior = load_prior(self.run, self.weights_hash)
        return None if prior is None else prior.to(self.device)

    def to(self, device: str | torch.device) -> "LoadedModel":
        """Copy to another device: "auto", "cpu", "cuda", "cuda:1" or "mps"; returns `self` if it is there."""
        target = resolve_device(device)
        if target == self.device:
            return self
        return replace(self, vae=copy.deepcopy(self.vae).to(target), device=target)


def load_model(
    run: Run, networks: Mapping[str, nn.Module], device: str | torch.device = "auto", arrays: Any = None
) -> LoadedModel:
    """Load the model of a run folder.

    `networks` are the custom "encoder" or "decoder" that it was trained with, `arrays` the training data, if
    they were given in memory.
    """
    target = resolve_device(device)
    metadata = read_metadata(run)
    config, shape, classes = metadata.config, metadata.shape, metadata.classes
    conditions = width_of(metadata.conditions)
    with limited_to_weights(run.weights):
        vae, objective = build(config, shape, len(classes), networks=networks, conditions=conditions)
    load_weights(vae, run.weights)
    vae = vae.to(target).eval().requires_grad_(False)
    digest = sha256(run.weights)
    parts = run, config, vae, objective, shape, classes, digest, target, metadata.conditions, arrays
    return LoadedModel(*parts)
