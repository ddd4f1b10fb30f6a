"""Densities against closed forms, sums and sampling."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaekit.models.distributions.latents import DiagonalGaussian, StandardNormal, kl_per_latent


def latents(batch: int = 3, size: int = 4) -> DiagonalGaussian:
    return DiagonalGaussian(torch.randn(batch, size), torch.randn(batch, size))


def test_latent_density_is_torchs_normal() -> None:
    q = latents()
    reference = Independent(Normal(q.loc, q.stddev), 1)
    z = torch.randn(5, 3, 4)
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z))
    standard = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    torch.testing.assert_close(StandardNormal(4).log_prob(z), standard.log_prob(z))


@pytest.mark.parametrize("prior", ["standard", "gaussian"])
def test_closed_form_kl_matches_monte_carlo_and_torch(prior: str) -> None:
    q = latents()
    p = StandardNormal(4) if prior == "standard" else latents()
    z = q.rsample((400_000,))
    ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std(0) / math.sqrt(len(z))
    per_latent = kl_per_latent(q, p)
    assert per_latent is not None
    closed = per_latent.sum(-1)
    assert ((closed - ratio.mean(0)).abs() < 5 * error).all()
    prior = Normal(p.mean.expand(3, 4), p.variance.sqrt().expand(3, 4))
    reference = kl_divergence(Normal(q.mean, q.stddev), prior)
    torch.testing.assert_close(per_latent, reference, atol=1e-5, rtol=1e-5)
