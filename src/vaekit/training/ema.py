"""The exponential moving average (EMA) of the weights, which is what is validated and saved for use."""

import copy
import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """A copy of a model whose weights follow the model's.

    The decay starts low, min(decay, (1 + step) / (10 + step)), so that the random initial weights are soon
    forgotten. An average over many steps changes little from one to the next, so it is updated every second,
    fourth, ... or sixteenth step only (a sixteenth of its horizon), by as much as the skipped updates would
    have moved it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model: Any = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self._weights = list(self.model.parameters()), list(model.parameters())
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model after training step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        every = 2 ** min(4, int(math.log2(max(1.0, 1 / (16 * (1 - decay))))))
        if step % every:
            return
        get_ema_multi_avg_fn(decay**every)(*self._weights, step)
        for average, current in self._buffers:
            average.copy_(current)
