"""What the parts of a model take from the training images before the first step; never on load."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.data.loader import ImageLoader
from vaekit.latents.sampling import seeded
from vaekit.models.terms import Labels
from vaekit.models.vae import VAE

AVERAGED = 2000
"""Images whose mean stands for that of the training set."""


COPY_NOISE = 0.05
"""Standard deviation of the noise on a pseudo-input that is the copy of another, where pixels run from 0 to 1."""


def init_from_data(models: Sequence[VAE], batches: ImageLoader, seed: int) -> None:
    """Call `start` of every part that has one, the same for all `models`, which are copies of one.

    An encoder gets the mean image; a decoder the outputs at which it is the mean of p(x | z), where the likelihood has
    `inverse_mean`; a prior with `init_images` as many images with their labels.
    """
    first = models[0]
    given: dict[str, tuple[Any, ...]] = {}
    if hasattr(first.encoder, "init_from_data") or hasattr(first.decoder, "init_from_data"):
        mean = _mean_image(batches)
        given["encoder"] = (mean,)
        if (outputs := first.likelihood.inverse_mean(mean)) is not None:
            given["decoder"] = (outputs,)
    if wanted := first.prior.init_images:
        x, y = _first_images(batches, wanted, seed)
        given["prior"] = (x, y if first.classes else None)
    for slot, what in given.items():
        for model in models:
            if hasattr(part := getattr(model, slot), "init_from_data"):
                part.init_from_data(*what)


def _mean_image(batches: ImageLoader) -> Float[Tensor, "C H W"]:
    """The mean of the first images of the first epoch."""
    count = max(1, min(AVERAGED // batches.batch_size, batches.steps_per_epoch))
    return torch.stack([x.mean(0) for x, _ in itertools.islice(batches.train(0), count)]).mean(0)


def _first_images(batches: ImageLoader, wanted: int, seed: int) -> tuple[Float[Tensor, "K C H W"], Labels | None]:
    """The first images of the first epoch, and their labels. One that was there before, as where more are wanted than
    there are, gets a little noise: equal pseudo-inputs would stay equal for good."""
    found: list[Tensor] = []
    labels: list[Tensor] = []
    epochs = (batch for epoch in itertools.count() for batch in batches.train(epoch))
    while sum(map(len, found)) < wanted:
        x, y = next(epochs)
        found.append(x)
        labels += [] if y is None else [y]
    x = torch.cat(found)[:wanted].contiguous()
    _, number = x.flatten(1).unique(dim=0, return_inverse=True)
    again = torch.tensor([bool((number[:i] == one).any()) for i, one in enumerate(number)], device=x.device)
    with seeded(seed, "pseudo-inputs"):
        x[again] = (x[again] + COPY_NOISE * torch.randn_like(x[again])).clamp(0, 1)
    return x, torch.cat(labels)[:wanted] if labels else None
