"""Mixtures of logistics over the 256 levels of a pixel, its colours one after another (PixelCNN++)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from vaekit.models.distributions.discretized import (
    LOGISTIC,
    LocScaleFamily,
    clamp_straight_through,
    clipped_mean,
    discretized_log_prob,
    discretized_sample,
)
from vaekit.models.distributions.pixels import LevelSupport

LOCATION_BOUNDS = (-3.0, 4.0)
"""Bounds of a location, far outside [0, 1]: beyond them a level's width would drown in float32. The gradient passes."""


QUADRATURE_NODES = 16


LATTICE_MULTIPLIERS = (1, 7, 11, 13)
"""Multipliers, odd so that every colour meets every node once, in an order of its own: a rank-1 lattice."""


class PixelMixture(Distribution):
    """K logistics per pixel, rounded to the 256 levels (see `DiscretizedLocScale`); a component serves all colours.

    Salimans et al. 2017 (PixelCNN++, arXiv:1701.05517), equations 1 to 3: the location of colour c is
    `loc[c]` + the sum over earlier colours j < c of `coupling[c(c-1)/2 + j]` * (x_j - 1/2), with the value x_j that the
    pixel really has. (The paper's pixels run from -1 to 1, so that gray is zero there too.) P is the number of pairs of
    colours, C(C-1)/2.
    """

    support = constraints.independent(LevelSupport(), 3)

    def __init__(
        self,
        logits: Float[Tensor, "*S B K H W"],
        loc: Float[Tensor, "*S B C K H W"],
        log_sigma: Float[Tensor, "*S B C K H W"],
        coupling: Float[Tensor, "*S B P K H W"],
    ) -> None:
        self.logits, self.coupling = logits, coupling
        self.loc, self.log_sigma = loc, log_sigma
        self.colours = loc.shape[-4]
        # Each once: the gradients of single slices would each be as large as the whole
        self._locs, self._log_sigmas, self._couplings = (t.unbind(-4) for t in (loc, log_sigma, coupling))
        super().__init__(logits.shape[:-3], Size([self.colours, *logits.shape[-2:]]), validate_args=False)

    def log_prob(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B"]:
        colours = value.split(1, -3)
        joint = self.logits
        for c, x in enumerate(colours):
            joint = joint + discretized_log_prob(*self._colour(c, colours), x, LOGISTIC)
        return (joint.logsumexp(-3) - self.logits.logsumexp(-3)).flatten(-2).sum(-1)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        """A component, then colour after colour."""
        logits = self.logits.expand(*sample_shape, *self.logits.shape)
        exponential = torch.empty_like(logits, memory_format=torch.contiguous_format).exponential_()
        chosen = (logits - exponential.log()).argmax(-3, keepdim=True)  # Gumbel's trick

        def pick(t: Tensor) -> Tensor:
            index = chosen.unsqueeze(-4).expand(*chosen.shape[:-3], *t.shape[-4:-3], *chosen.shape[-3:])
            return t.expand(*sample_shape, *t.shape).gather(-3, index)

        weight = torch.zeros_like(chosen, dtype=logits.dtype)
        component = PixelMixture(weight, pick(self.loc), pick(self.log_sigma), pick(self.coupling))
        colours: list[Tensor] = []
        for c in range(self.colours):
            colours.append(discretized_sample(*component._colour(c, colours), LOGISTIC))
        return torch.cat(colours, -3)

    @property
    def mean(self) -> Tensor:
        """E[x], as if clipped and not rounded: exact for the first colour. For the others it is the average over QUADRATURE_NODES
        values of the earlier ones, each the mean of a logistic over an equal share of its probability."""
        return self._average(_nodes(QUADRATURE_NODES if self.colours > 1 else 1).tolist(), clipped_mean)

    @property
    def location(self) -> Tensor:
        """The components' centres, clipped to [0, 1] and averaged by their weights; a later colour's are those
        given the centres of the earlier ones."""
        return self._average([0.0], lambda loc, *_: loc.clamp(0, 1))

    def _average(self, nodes: Sequence[float], value: Callable[[Tensor, Tensor, LocScaleFamily], Tensor]) -> Tensor:
        """`value` of every colour's noise, averaged over components and over `nodes`, standardised values of the
        earlier colours."""
        weights = self.logits.softmax(-3)
        means = [torch.zeros_like(self.logits) for _ in range(self.colours)]
        for i in range(len(nodes)):
            colours: list[Tensor] = []
            for c, multiplier in zip(range(self.colours), LATTICE_MULTIPLIERS, strict=False):
                loc, log_sigma = self._colour(c, colours)
                means[c] += value(loc, log_sigma, LOGISTIC)
                colours.append((loc + log_sigma.exp() * nodes[i * multiplier % len(nodes)]).clamp(0, 1))
        return torch.stack([(weights * mean).sum(-3) for mean in means], -3) / len(nodes)

    def _colour(self, c: int, colours: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Location and log-scale [*S, B, K, H, W] of colour c, given the earlier ones [B, 1, H, W] or the like."""
        loc, pair = self._locs[c], c * (c - 1) // 2
        for j in range(c):
            loc = torch.addcmul(loc, self._couplings[pair + j], colours[j] - 0.5)
        return clamp_straight_through(loc, *LOCATION_BOUNDS), self._log_sigmas[c]


def _nodes(count: int) -> Tensor:
    """Means of the standard logistic over `count` shares of equal probability.

    Its quantile function log(u / (1 - u)) has the antiderivative u log u + (1 - u) log(1 - u).
    """
    u = torch.linspace(0, 1, count + 1, dtype=torch.float64, device="cpu")
    return (torch.xlogy(u, u) + torch.xlogy(1 - u, 1 - u)).diff() * count
