"""Invertible maps of D latents, given a context or none: zuko's, put together, and near the identity to start with, so
that the first steps meet no extreme densities."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from zuko.flows import GeneralCouplingTransform, MaskedAutoregressiveTransform
from zuko.lazy import LazyComposedTransform
from zuko.transforms import MonotonicRQSTransform


def autoregressive(latents: int, context: int, steps: int, hidden: Sequence[int]) -> nn.Module:
    """Scale and shift of every latent, given those before it; the order turns round from step to step."""
    order = torch.arange(latents)
    return _gently(
        [
            MaskedAutoregressiveTransform(
                latents, context, order=order.flip(0) if step % 2 else order, hidden_features=tuple(hidden)
            )
            for step in range(steps)
        ]
    )


def affine(latents: int, context: int, steps: int, hidden: Sequence[int]) -> nn.Module:
    """RealNVP (Dinh et al. 2017, arXiv:1605.08803): scale and shift of every other latent, given the rest."""
    return _couplings(latents, context, steps, hidden)


def spline(latents: int, context: int, steps: int, hidden: Sequence[int], bins: int = 8) -> nn.Module:
    """Coupling steps of monotonic rational-quadratic splines on [-5, 5], the identity outside."""
    shapes = [(bins,), (bins,), (bins - 1,)]
    return _couplings(latents, context, steps, hidden, univariate=MonotonicRQSTransform, shapes=shapes)


def _couplings(latents: int, context: int, steps: int, hidden: Sequence[int], **transform: Any) -> nn.Module:
    masks = [torch.arange(latents) % 2 == step % 2 for step in range(steps)]
    return _gently(
        [
            GeneralCouplingTransform(latents, context, mask=mask, hidden_features=tuple(hidden), **transform)
            for mask in masks
        ]
    )


def _gently(steps: Sequence[nn.Module]) -> nn.Module:
    """The steps, one after another, with a tenth of the weights that decide what each does."""
    with torch.no_grad():
        for step in steps:
            hyper = getattr(step, "hyper", None)  # a single latent has no network that sees others
            for weight in (hyper[-1] if isinstance(hyper, nn.Sequential) else step).parameters():
                weight.mul_(0.1)
    return cast(nn.Module, LazyComposedTransform(*steps))
