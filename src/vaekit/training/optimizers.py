"""Optimizer, learning rate and the moving average of the weights."""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Adamax, AdamW, Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vaekit.config.training import TrainingConfig
from vaekit.models.vae import VAE
from vaekit.training.soap import SOAP


def compute_dtype(settings: TrainingConfig) -> torch.dtype:
    """The type that matrix products are computed in."""
    return torch.bfloat16 if settings.precision == "bf16" else torch.float32


def make_optimizer(parameters: Iterable[nn.Parameter], settings: TrainingConfig) -> Optimizer:
    """Adam (Kingma & Ba 2015), AdamW, Adamax with usual constants, SOAP, or SGD with momentum 0.9."""
    rate, decay = settings.learning_rate, settings.weight_decay
    parameters = list(parameters)
    device = parameters[0].device
    fused = device.type in ("cpu", "cuda", "mps")
    match settings.optimizer:
        case "adam" | "adamw" as kind:
            make = Adam if kind == "adam" else AdamW
            graph = device.type == "cuda"  # for which all that a step needs has to be on the device
            lr = torch.tensor(rate, device=device) if graph else rate
            return make(parameters, lr, weight_decay=decay, fused=fused, capturable=graph)
        case "adamax":
            return Adamax(parameters, rate, weight_decay=decay)
        case "soap":
            return SOAP(parameters, rate, decay, precision=compute_dtype(settings))
        case "sgd":
            return SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=fused)


def learning_rate(settings: TrainingConfig, step: int, steps: int) -> float:
    """The learning rate at `step` of `steps`: a linear warm-up, then constant or a cosine decay to zero.

    The warm-up (`ramp`) takes no more than half of the steps: a short run would end within it.
    """
    rate, ramp = settings.learning_rate, min(settings.ramp, steps // 2)
    if step < ramp:
        rate *= (step + 1) / ramp
    if settings.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return rate


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of the next step: a number, or a tensor on the device."""
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):
            group["lr"] = rate
        elif group.get("rate") != rate:
            group["lr"].fill_(rate)
            group["rate"] = rate


class EMA:
    """The exponential moving average (EMA) of the weights, a copy of the model that is validated and saved.

    The decay starts low, min(decay, (1 + step) / (10 + step)), so that the random initial weights are soon
    forgotten. An average over many steps changes little from one to the next, so it is updated every second,
    fourth, ... or sixteenth step only (a sixteenth of its horizon), by as much as the skipped updates would
    have moved it.
    """

    def __init__(self, model: VAE, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
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
