"""Mixtures of logistics over the 256 levels of a pixel, autoregressive over its channels (PixelCNN++)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution

from vaekit.models.distributions import discretized
from vaekit.models.distributions.discretized import LOGISTIC, clamp_straight_through

LOCATION_BOUNDS = (-3.0, 4.0)
"""Bounds of a location, far outside [0, 1], beyond which float32 does not resolve a level."""

QUADRATURE_NODES = 16
"""Values of each earlier channel over which the mean of a channel is averaged."""

LATTICE_MULTIPLIERS = (1, 7, 11, 13)
"""Of a rank-1 lattice, one per channel; odd, so that each takes every node once, in another order."""


class PixelMixture(Distribution):
    """K logistics per pixel over all channels, rounded to the 256 levels (see `DiscretizedLocScale`).

    Salimans et al. 2017 (PixelCNN++, arXiv:1701.05517), equations 1 to 3: the location of channel c is
    `loc[c]` + the sum over earlier channels j < c of `coupling[c(c-1)/2 + j]` * (x_j - 1/2), with the
    observed value x_j. (Gray is zero in the paper too.) P = C(C-1)/2 is the number of pairs of channels.
    """

    def __init__(
        self,
        logits: Float[Tensor, "*S B K H W"],
        loc: Float[Tensor, "*S B C K H W"],
        log_sigma: Float[Tensor, "*S B C K H W"],
        coupling: Float[Tensor, "*S B P K H W"],
    ) -> None:
        self.logits, self.loc, self.log_sigma, self.coupling = logits, loc, log_sigma, coupling
        self.channels = loc.shape[-4]
        # Unbound once: the gradient of every slice would be as large as the whole tensor
        self._locs, self._log_sigmas, self._couplings = (t.unbind(-4) for t in (loc, log_sigma, coupling))
        super().__init__(logits.shape[:-3], Size([self.channels, *logits.shape[-2:]]), validate_args=False)

    def log_prob(self, value: Float[Tensor, "B C H W"]) -> Float[Tensor, "*S B"]:
        channels = value.split(1, -3)
        joint = self.logits
        for c, x in enumerate(channels):
            joint = joint + discretized.log_prob(*self._channel(c, channels), x, LOGISTIC)
        return (joint.logsumexp(-3) - self.logits.logsumexp(-3)).flatten(-2).sum(-1)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        """Sample a component, then one channel after another."""
        logits = self.logits.expand(*sample_shape, *self.logits.shape)
        exponential = torch.empty_like(logits, memory_format=torch.contiguous_format).exponential_()
        chosen = (logits - exponential.log()).argmax(-3, keepdim=True)  # Gumbel's trick

        def pick(t: Tensor) -> Tensor:
            index = chosen.unsqueeze(-4).expand(*chosen.shape[:-3], *t.shape[-4:-3], *chosen.shape[-3:])
            return t.expand(*sample_shape, *t.shape).gather(-3, index)

        weight = torch.zeros_like(chosen, dtype=logits.dtype)
        component = PixelMixture(weight, pick(self.loc), pick(self.log_sigma), pick(self.coupling))
        channels: list[Tensor] = []
        for c in range(self.channels):
            channels.append(discretized.sample(*component._channel(c, channels), LOGISTIC))
        return torch.cat(channels, -3)

    @property
    def mean(self) -> Tensor:
        """E[x] without rounding, exact for the first channel; for the others averaged over QUADRATURE_NODES
        values of the earlier ones, each the mean of a logistic over an equal share of probability."""
        return self._average(
            _nodes(QUADRATURE_NODES if self.channels > 1 else 1).tolist(), discretized.clipped_mean
        )

    @property
    def location(self) -> Tensor:
        """The centers of the components, clipped to [0, 1] and averaged, given those of earlier channels."""
        return self._average([0.0], lambda loc, *_: loc.clamp(0, 1))

    def _average(self, nodes: Sequence[float], value: Callable[..., Tensor]) -> Tensor:
        """`value` of every channel's noise, averaged over components and over `nodes`, standardized values of
        the earlier channels."""
        weights = self.logits.softmax(-3)
        means = [torch.zeros_like(self.logits) for _ in range(self.channels)]
        for i in range(len(nodes)):
            channels: list[Tensor] = []
            for c, multiplier in zip(range(self.channels), LATTICE_MULTIPLIERS, strict=False):
                loc, log_sigma = self._channel(c, channels)
                means[c] += value(loc, log_sigma, LOGISTIC)
                channels.append((loc + log_sigma.exp() * nodes[i * multiplier % len(nodes)]).clamp(0, 1))
        return torch.stack([(weights * mean).sum(-3) for mean in means], -3) / len(nodes)

    def _channel(self, c: int, channels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Location and log-scale [*S, B, K, H, W] of channel c, given the earlier channels [B, 1, H, W]."""
        loc, pair = self._locs[c], c * (c - 1) // 2
        for j in range(c):
            loc = torch.addcmul(loc, self._couplings[pair + j], channels[j] - 0.5)
        return clamp_straight_through(loc, *LOCATION_BOUNDS), self._log_sigmas[c]


def _nodes(count: int) -> Tensor:
    """Means of the standard logistic over `count` shares of equal probability, by differences of the
    antiderivative u log u + (1 - u) log(1 - u) of its quantile function."""
    u = torch.linspace(0, 1, count + 1, dtype=torch.float64, device="cpu")
    return (torch.xlogy(u, u) + torch.xlogy(1 - u, 1 - u)).diff() * count
