"""Invertible maps of D latents, composed of zuko's transforms and optionally conditioned on a context.

They start near the identity, where no density is extreme.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from zuko.flows import GeneralCouplingTransform, MaskedAutoregressiveTransform
from zuko.lazy import LazyComposedTransform
from zuko.transforms import CouplingTransform, MonotonicRQSTransform, Transform


def autoregressive(latents: int, context: int, steps: int, hidden: Sequence[int]) -> nn.Module:
    """Scale and shift of every latent, given those before it; the order is reversed from step to step."""
    order = torch.arange(latents)
    make = partial(MaskedAutoregressiveTransform, latents, context, hidden_features=tuple(hidden))
    return _near_identity([make(order=order.flip(0) if step % 2 else order) for step in range(steps)])


def spline(latents: int, context: int, steps: int, hidden: Sequence[int], bins: int = 8) -> nn.Module:
    """Coupling steps of monotonic rational-quadratic splines on [-5, 5], with the identity outside."""
    shapes = [(bins,), (bins,), (bins - 1,)]
    return couplings(latents, context, steps, hidden, univariate=MonotonicRQSTransform, shapes=shapes)


def couplings(latents: int, context: int, steps: int, hidden: Sequence[int], **transform: Any) -> nn.Module:
    """Transform every other latent, given the rest: by default scale and shift, which is RealNVP (Dinh et al.
    2017, arXiv:1605.08803)."""
    transform |= {"hidden_features": tuple(hidden)}
    return _near_identity([_Coupling(latents, context, step % 2, **transform) for step in range(steps)])


class _Alternating(CouplingTransform):  # type: ignore[misc]
    """A coupling that leaves every other latent unchanged, from `first` on. zuko's indexes by a mask, which
    makes a GPU wait and cannot be recorded in a CUDA graph."""

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
    """Compose the steps, with the weights that determine each scaled down to a tenth."""
    with torch.no_grad():
        for step in steps:
            hyper = getattr(step, "hyper", None)  # with a single latent there is no network
            for weight in (hyper[-1] if isinstance(hyper, nn.Sequential) else step).parameters():
                weight.mul_(0.1)
    return LazyComposedTransform(*steps)
