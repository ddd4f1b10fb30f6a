"""p(z): what latents look like before an image is seen."""

import torch
from torch import Tensor, nn

from vaekit.parts.distributions import StandardNormal
from vaekit.parts.types import Encode, part


@part("prior", "normal")
class NormalPrior(nn.Module):
    """N(0, I), without parameters."""

    offers = frozenset({"density_at_sample", "density_anywhere", "factorised"})
    anchor: Tensor

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.latents = latents
        self.register_buffer("anchor", torch.zeros(()), persistent=False)  # knows which device the model is on

    def forward(self, encode: Encode, y: Tensor | None = None) -> StandardNormal:
        """p(z | y). A prior made of encodings (VampPrior) calls `encode`; this one needs neither argument."""
        return StandardNormal(self.latents, self.anchor.device)
