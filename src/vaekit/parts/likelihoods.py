"""p(x | z): from the decoder's output [S, B, outputs, H, W] to a distribution over images [C, H, W]."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import constraints

from vaekit.parts.distributions import DiscretizedGaussian, Level, PixelBernoulli, PixelGaussian
from vaekit.parts.types import part


@part("likelihood", "bernoulli")
class Bernoulli(nn.Module):
    """Binary cross-entropy on [0, 1], from logits: the likelihood of the classic VAE.

    Not normalised over grey levels, so its bound is no log-likelihood of them and has no bits/dim.
    """

    support = constraints.unit_interval

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.outputs = channels

    def forward(self, output: Float[Tensor, "*S B C H W"], x: Float[Tensor, "B C H W"] | None = None) -> PixelBernoulli:
        return PixelBernoulli(output)


@part("likelihood", "gaussian")
class Gaussian(nn.Module):
    """A normal with one standard deviation for all pixels, over 256 levels or as a plain density.

    sigma `fixed` at `scale`; `learned` with the weights; or `optimal`: the value that maximises the likelihood, which
    for a density is the root of the mean squared error (Rybkin et al. 2021, here over a running window of training
    instead of one batch). Over 256 levels, where rounding and clipping hide a part of each error, the expectation of
    the square takes its place, which is the EM step for sigma (Dempster et al. 1977). It moves while the module trains
    on images `x` and is frozen otherwise.
    """

    SMALLEST = 1 / 255 / 8
    """An eighth of a level: below it a discretised normal can no longer tell its neighbours apart."""
    MEMORY = 0.99
    log_sigma: Tensor
    mean_square: Tensor
    weight: Tensor

    def __init__(
        self,
        channels: int,
        sigma: Literal["fixed", "learned", "optimal"] = "learned",
        scale: float = 0.1,
        levels: Literal["256", "none"] = "256",
    ) -> None:
        super().__init__()
        self.outputs = channels
        self.sigma, self.discrete = sigma, levels == "256"
        self.support: constraints.Constraint = Level() if self.discrete else constraints.real
        self.offers = frozenset({"normalised"} if self.discrete else ())
        start = torch.tensor(math.log(scale))
        if sigma == "learned":
            self.log_sigma = nn.Parameter(start)
        else:
            self.register_buffer("log_sigma", start)
        if sigma == "optimal":
            self.register_buffer("mean_square", torch.zeros(()))
            self.register_buffer("weight", torch.zeros(()))

    def forward(
        self, output: Float[Tensor, "*S B C H W"], x: Float[Tensor, "B C H W"] | None = None
    ) -> DiscretizedGaussian | PixelGaussian:
        loc = torch.sigmoid(output) if self.discrete else output
        if self.sigma == "optimal" and self.training and x is not None:
            self._follow(self._around(loc.detach()).expected_square(x).mean())
        return self._around(loc)

    def _around(self, loc: Float[Tensor, "*S B C H W"]) -> DiscretizedGaussian | PixelGaussian:
        floor = self.log_sigma.detach().clamp(min=math.log(self.SMALLEST)) - self.log_sigma.detach()
        log_sigma = self.log_sigma + floor  # the gradient passes, so that a learned sigma finds back above the floor
        return DiscretizedGaussian(loc, log_sigma) if self.discrete else PixelGaussian(loc, log_sigma)

    @torch.no_grad()
    def _follow(self, mean_square: Float[Tensor, ""]) -> None:
        self.mean_square.lerp_(mean_square.float(), 1 - self.MEMORY)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.MEMORY)
        self.log_sigma.copy_(0.5 * (self.mean_square / self.weight).clamp(min=self.SMALLEST**2).log())
