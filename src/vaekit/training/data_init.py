"""What components take from the training images before the first step; never on load."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.data.loader import ImageLoader
from vaekit.latents.sampling import seeded
from vaekit.models.terms import Labels
from vaekit.models.vae import CONDITION_ROWS, VAE

MEAN_IMAGES = 2000
"""Images whose mean stands for that of the training set."""
COPY_NOISE = 0.05
"""Standard deviation of the noise on a pseudo-input that is a copy of another one; pixels run from 0 to 1."""


def init_from_data(models: Sequence[VAE], loader: ImageLoader, seed: int) -> None:
    """Call `init_from_data` of every component that has it, the same for all `models`, copies of one.

    An encoder gets the mean image; a decoder the outputs at which it is the mean of p(x | z), if the
    likelihood has `inverse_mean`; a prior with `init_images` as many images with their labels. A model with
    conditions gets those of training images.
    """
    first = models[0]
    if first.vector:
        rows = _condition_rows(loader, seed)
        for model in models:
            model.condition_rows.copy_(rows)
    arguments: dict[str, tuple[Any, ...]] = {}
    if hasattr(first.encoder, "init_from_data") or hasattr(first.decoder, "init_from_data"):
        batches = max(1, min(MEAN_IMAGES // loader.batch_size, loader.steps_per_epoch))
        mean = torch.stack([x.mean(0) for x, _ in itertools.islice(loader.train(0), batches)]).mean(0)
        arguments["encoder"] = (mean,)
        if (outputs := first.likelihood.inverse_mean(mean)) is not None:
            arguments["decoder"] = (outputs,)
    if count := first.prior.init_images:
        x, y = _distinct_images(loader, count, seed)
        arguments["prior"] = (x, y if first.classes else None)
    for slot, values in arguments.items():
        for model in models:
            if hasattr(component := getattr(model, slot), "init_from_data"):
                component.init_from_data(*values)


def _condition_rows(loader: ImageLoader, seed: int) -> Float[Tensor, "R K"]:
    """Conditions of training images in random order, all of them before any comes a second time."""
    values = torch.from_numpy(np.array(loader.source.split_labels("train")))
    with seeded(seed, "conditions"):
        order = torch.randperm(len(values))
    return values[order[torch.arange(CONDITION_ROWS) % len(order)]]


def _distinct_images(loader: ImageLoader, count: int, seed: int) -> tuple[Tensor, Labels | None]:
    """The first images [K, C, H, W] of training, and their labels.

    A repeated one, as when more are wanted than there are, gets a little noise: equal pseudo-inputs would
    stay equal forever.
    """
    batches = (batch for epoch in itertools.count() for batch in loader.train(epoch))
    first = list(itertools.islice(batches, math.ceil(count / loader.batch_size)))
    labels = [y for _, y in first if y is not None]
    x = torch.cat([x for x, _ in first])[:count].contiguous()
    _, number = x.flatten(1).unique(dim=0, return_inverse=True)
    repeated = torch.tensor([bool((number[:i] == n).any()) for i, n in enumerate(number)], device=x.device)
    with seeded(seed, "pseudo-inputs"):
        x[repeated] = (x[repeated] + COPY_NOISE * torch.randn_like(x[repeated])).clamp(0, 1)
    return x, torch.cat(labels)[:count] if labels else None
