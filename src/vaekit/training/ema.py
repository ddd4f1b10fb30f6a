"""The moving average of the weights."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def make_ema_update(ema_model: nn.Module, model: nn.Module, decay: float) -> Callable[[int], None]:
    """A function of the step that moves the weights of `ema_model` towards those of `model` and copies its buffers.

    The decay starts low, min(decay, (1 + step) / (10 + step)), so that the first random weights are soon forgotten. Of
    an average over many steps every second, fourth, .. sixteenth tells as much as all of them, a sixteenth of those it
    reaches back over: it is moved as far as they would have moved it, at a fraction of the passes over all weights.
    """
    weights = list(ema_model.parameters()), list(model.parameters())
    buffers = list(zip(ema_model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update_ema(step: int) -> None:
        now = min(decay, (1 + step) / (10 + step))
        every = 2 ** min(4, int(math.log2(max(1.0, 1 / (16 * (1 - now))))))
        if step % every:
            return
        get_ema_multi_avg_fn(now**every)(*weights, step)
        for old, new in buffers:
            old.copy_(new)

    return update_ema
