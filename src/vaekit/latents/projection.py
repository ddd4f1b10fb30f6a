"""Principal components of latents: an invertible projection to few dimensions."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Projection(NamedTuple):
    """Points and their principal components, in descending order of variance."""

    coordinates: Float[Tensor, "N K"]
    shares: Float[Tensor, " K"]
    """The share of the variance along each component."""
    mean: Float[Tensor, " D"]
    directions: Float[Tensor, "K D"]
    """Orthonormal rows, each with its largest entry positive."""

    def invert(self, coordinates: Float[Tensor, "M k"]) -> Float[Tensor, "M D"]:
        """Map coordinates along the first k components back to points."""
        return self.mean + coordinates @ self.directions[: coordinates.shape[1]]


def pca(z: Float[Tensor, "N D"]) -> Projection:
    """Principal component analysis (Pearson 1901, doi:10.1080/14786440109462720), K = min(N, D)."""
    mean = z.mean(0)
    _, values, directions = torch.linalg.svd(z - mean, full_matrices=False)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)  # the sign of a component is arbitrary
    variances = values.square()
    shares = variances / variances.sum().clamp(min=1e-12)
    return Projection((z - mean) @ directions.T, shares, mean, directions)
