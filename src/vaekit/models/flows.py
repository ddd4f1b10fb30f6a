"""Invertible maps of D latents, given a context or none: zuko's, put together, and near the identity to start with, so
that the first steps meet no extreme densities."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from zuko.flows import GeneralCouplingTransform, MaskedAutoregressiveTransform
from zuko.lazy import LazyComposedTransform
from zuko.transforms import CouplingTransform, MonotonicRQSTransform, Transform


def autoregressive(latents: int, context: int, steps: int, hidden: Sequence[int]) -> nn.Module:
    """Scale and shift of every latent, given those before it; the order turns round from step to step."""
    order = torch.arange(latents)
    return _near_identity(
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
    return _near_identity(
        [_Coupling(latents, context, step % 2, hidden_features=tuple(hidden), **transform) for step in range(steps)]
    )


class _Alternating(CouplingTransform):  # type: ignore[misc]
    """A coupling that keeps every other latent, from number `first` on. zuko's own looks its latents up in a mask at
    every use: a GPU would be waited for, and the step could not be recorded."""

    def __init__(self, meta: Callable[[Tensor], Transform], first: int) -> None:
        Transform.__init__(self)
        self.meta, self.idx_a, self.idx_b = meta, slice(first, None, 2), slice(1 - first, None, 2)


class _Coupling(GeneralCouplingTransform):  # type: ignore[misc]
    def __init__(self, latents: int, context: int, first: int, **settings: Any) -> None:
        super().__init__(latents, context, mask=torch.arange(latents) % 2 == first, **settings)
        self.first = first

    def forward(self, c: Tensor | None = None) -> Transform:
        return _Alternating(partial(self.meta, c), self.first)


def _near_identity(steps: Sequence[nn.Module]) -> nn.Module:
    """The steps, one after another, with a tenth of the weights that decide what each does."""
    with torch.no_grad():
        for step in steps:
            hyper = getattr(step, "hyper", None)  # a single latent has no network that sees others
            for weight in (hyper[-1] if isinstance(hyper, nn.Sequential) else step).parameters():
                weight.mul_(0.1)
    return cast(nn.Module, LazyComposedTransform(*steps))
