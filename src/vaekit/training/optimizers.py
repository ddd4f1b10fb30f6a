"""Optimizer and learning rate, from the training settings."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Adamax, AdamW, Optimizer

from vaekit.config.training import TrainingConfig
from vaekit.training.soap import SOAP

LARGEST_UPDATE = 1.5
"""Root mean square of a tensor's gradients, relative to that of earlier steps, above which `stable_adam`
scales them down. Gradients of usual size have 1."""


def compute_dtype(settings: TrainingConfig) -> torch.dtype:
    """The type that matrix products are computed in."""
    return torch.bfloat16 if settings.precision == "bf16" else torch.float32


def make_optimizer(parameters: Iterable[nn.Parameter], settings: TrainingConfig) -> Optimizer:
    """Adam (Kingma & Ba 2015), AdamW, Adamax with usual constants, Adam with clipped updates, SOAP, or SGD
    with momentum 0.9."""
    rate, decay = settings.learning_rate, settings.weight_decay
    parameters = list(parameters)
    device = parameters[0].device
    fused = device.type in ("cpu", "cuda", "mps")
    match settings.optimizer:
        case "adam" | "adamw" | "stable_adam" as kind:
            make = AdamW if kind == "adamw" else Adam
            graph = device.type == "cuda"  # for which all that a step needs has to be on the device
            lr = torch.tensor(rate, device=device) if graph else rate
            optimizer = make(parameters, lr, weight_decay=decay, fused=fused, capturable=graph)
            if kind == "stable_adam":
                optimizer.register_step_pre_hook(_clip_updates)
            return optimizer
        case "adamax":
            return Adamax(parameters, rate, weight_decay=decay)
        case "soap":
            return SOAP(parameters, rate, decay, precision=compute_dtype(settings))
        case "sgd":
            return SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=fused)


@torch.no_grad()
def _clip_updates(optimizer: Optimizer, *_: Any) -> None:
    """Scale down the gradients of tensors that Adam would update by more than `LARGEST_UPDATE`.

    The root mean square of g / sqrt(v), where v is Adam's second moment before this step, is about 1 while
    gradients are as large as before. Where the loss rises suddenly it is far more, and Adam's next steps
    would be too large for the new gradients (Shazeer & Stern 2018, arXiv:1804.04235, section 6; Wortsman et
    al. 2023, arXiv:2304.13013, section 3.2).
    """
    for group in optimizer.param_groups:
        moved = [p for p in group["params"] if p.grad is not None and "exp_avg_sq" in optimizer.state[p]]
        if not moved:
            continue
        usual = torch._foreach_sqrt([optimizer.state[p]["exp_avg_sq"] for p in moved])
        torch._foreach_add_(usual, 1e-12)
        gradients = [p.grad for p in moved]
        norms = torch._foreach_norm(torch._foreach_div(gradients, usual))
        bias = (1 - group["betas"][1] ** optimizer.state[moved[0]]["step"]).sqrt()
        largest = [LARGEST_UPDATE * math.sqrt(p.numel()) for p in moved]
        excess = torch._foreach_div(torch._foreach_mul(norms, bias), largest)
        torch._foreach_div_(gradients, torch._foreach_clamp_min(excess, 1.0))


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
