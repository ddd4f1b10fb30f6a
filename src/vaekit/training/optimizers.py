"""Optimizer and learning rate, from the training settings."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Adamax, AdamW, Optimizer

from vaekit.config.training import TrainingConfig
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
