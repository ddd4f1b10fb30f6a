"""A perceptual loss on top of any objective."""

import math
from typing import Any

import torch
from torch import Tensor

from vaekit.errors import UserError, setting
from vaekit.models.interfaces import location
from vaekit.models.perceptual import MIN_SIZE, Lpips
from vaekit.models.terms import Objective, Terms

IMAGES_PER_BATCH = 8
"""Images of a batch whose perceptual loss is computed, which takes longer than the rest of the step."""


class WithPerceptualLoss(Objective):
    """An objective plus LPIPS of the reconstructions (Zhang et al. 2018, arXiv:1801.03924), in training.

    LPIPS stands for a loss of `weight` nats per pixel and channel, and is a metric of its own; "loss" stays
    that of the objective. The gradient reaches the model through the location of p(x | z), and neither the
    noise level nor the network of LPIPS.
    """

    def __init__(
        self, objective: Objective, weight: float, size: tuple[int, int], precision: torch.dtype
    ) -> None:
        if min(size) < MIN_SIZE:
            raise UserError(
                f"A perceptual loss needs images of at least {MIN_SIZE}x{MIN_SIZE} pixels.",
                f"Use {setting('perceptual', 0.0)} or a larger {setting('size')}.",
                "perceptual",
            )
        super().__init__(objective.settings)
        network: Any = Lpips()  # torch's types do not know `memory_format`
        self.objective, self.weight = objective, weight
        self.network = network.to(dtype=precision, memory_format=torch.channels_last)
        self.samples, self.schedule_end = objective.samples, objective.schedule_end
        self.supports_accumulation = objective.supports_accumulation

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = self.objective(terms, epoch)
        assert terms.x is not None
        x, seen = terms.x[:IMAGES_PER_BATCH], location(terms.px)[0, :IMAGES_PER_BATCH]
        lpips = self.network.to(x.device)(x, seen).mean()
        return loss + self.weight * x[0].numel() * lpips, metrics | {"lpips": lpips}
