"""q(z | x): from the encoder's features to a distribution over latents."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.parts.distributions import DiagonalGaussian
from vaekit.parts.types import part

LOG_VARIANCE_BOUND = 15.0
"""Standard deviations stay between exp(-7.5) and exp(7.5): no overflow, and no vanishing noise, whatever the encoder
says. Near zero the bound is the identity."""


@part("posterior", "gaussian")
class GaussianPosterior(nn.Module):
    """A linear map to means and log-variances (Kingma & Welling 2014, appendix C.2)."""

    offers = frozenset({"density_at_sample", "density_anywhere", "factorised", "single_group"})

    def __init__(self, features: int, latents: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, 2 * latents)

    def forward(self, features: Float[Tensor, "B F"]) -> DiagonalGaussian:
        loc, raw = self.head(features).chunk(2, dim=-1)
        return DiagonalGaussian(loc, LOG_VARIANCE_BOUND * torch.tanh(raw / LOG_VARIANCE_BOUND))
