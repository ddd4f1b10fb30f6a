"""Draws of latents."""

import torch

from vaekit.latents.sampling import draw_like


def test_draws_like_latents_have_their_mean_and_covariance() -> None:
    torch.manual_seed(0)
    z = torch.randn(50, 4) @ torch.randn(4, 4) + 3
    drawn = draw_like(z, 100_000)
    assert torch.allclose(drawn.mean(0), z.mean(0), atol=0.05)
    expected = torch.cov(z.T, correction=0)
    assert (torch.cov(drawn.T) - expected).abs().max() < 0.02 * expected.diag().max()
