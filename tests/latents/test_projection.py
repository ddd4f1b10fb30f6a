"""Principal components: orthonormal, ordered, invertible."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from vaekit.latents.projection import pca


@pytest.mark.parametrize(("count", "dimensions"), [(50, 4), (5, 12), (1, 3), (2, 1)])
def test_pca_is_invertible(count: int, dimensions: int) -> None:
    z = torch.randn(count, dimensions) * torch.arange(1, dimensions + 1)
    projection = pca(z)
    assert torch.allclose(projection.invert(projection.coordinates), z, atol=1e-4)
    assert projection.coordinates.shape == (count, min(count, dimensions))
    identity = torch.eye(min(count, dimensions))
    assert torch.allclose(projection.directions @ projection.directions.T, identity, atol=1e-5)


def test_pca_agrees_with_scikit_learn() -> None:
    z = torch.randn(60, 5) * torch.tensor([3.0, 0.1, 2.0, 1.0, 0.5])
    projection, reference = pca(z), PCA().fit(z.double().numpy())
    assert np.allclose(projection.shares, reference.explained_variance_ratio_, atol=1e-5)
    products = projection.directions.double().numpy() @ reference.components_.T
    assert np.allclose(np.abs(products), np.eye(5), atol=1e-3)
    z = torch.cat([torch.randn(40, 2), torch.zeros(40, 3)], 1)
    projection = pca(z)
    assert torch.allclose(projection.invert(projection.coordinates[:, :2]), z, atol=1e-5)
    assert torch.allclose(projection.invert(torch.zeros(1, 1))[0], projection.mean)
