"""Densities against closed forms, sums and sampling."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Independent, Normal, kl_divergence

from vaekit.parts.distributions import (
    DiagonalGaussian,
    DiscretizedGaussian,
    PixelBernoulli,
    PixelGaussian,
    StandardNormal,
    kl_per_latent,
)

LEVELS = torch.arange(256) / 255


def latents(batch: int = 3, size: int = 4) -> DiagonalGaussian:
    return DiagonalGaussian(torch.randn(batch, size), torch.randn(batch, size))


def test_latent_density_is_torchs_normal() -> None:
    q = latents()
    reference = Independent(Normal(q.loc, q.stddev), 1)
    z = torch.randn(5, 3, 4)
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z))
    standard = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    torch.testing.assert_close(StandardNormal(4).log_prob(z), standard.log_prob(z))


def test_samples_have_the_moments_of_their_density() -> None:
    q = latents()
    z = q.rsample((200_000,))
    torch.testing.assert_close(z.mean(0), q.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), q.variance, atol=0.02, rtol=0.02)


def test_standard_normal_and_pixel_gaussian_samples_have_their_moments() -> None:
    z = StandardNormal(3).rsample((200_000,))
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=0.01, rtol=0)
    torch.testing.assert_close(z.var(0), torch.ones(3), atol=0.02, rtol=0)
    x = PixelGaussian(torch.full((1, 1, 1, 1, 2), 0.4), torch.tensor(math.log(0.3))).sample((200_000,))
    assert x.mean().item() == pytest.approx(0.4, abs=0.01)
    assert x.std().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("prior", ["standard", "gaussian"])
def test_closed_form_kl_meets_monte_carlo_and_torch(prior: str) -> None:
    q = latents()
    p = StandardNormal(4) if prior == "standard" else latents()
    z = q.rsample((400_000,))
    ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std(0) / math.sqrt(len(z))
    per_latent = kl_per_latent(q, p)
    assert per_latent is not None
    closed = per_latent.sum(-1)
    assert ((closed - ratio.mean(0)).abs() < 5 * error).all()
    reference = kl_divergence(Normal(q.mean, q.stddev), Normal(p.mean.expand(3, 4), p.variance.sqrt().expand(3, 4)))
    torch.testing.assert_close(per_latent, reference, atol=1e-5, rtol=1e-5)


def test_bernoulli_is_the_binary_cross_entropy_summed_over_pixels() -> None:
    logits, x = 5 * torch.randn(2, 3, 1, 4, 5), torch.rand(3, 1, 4, 5)
    reference = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum((-3, -2, -1))
    torch.testing.assert_close(PixelBernoulli(logits).log_prob(x), reference)


def test_bernoulli_probabilities_of_all_binary_images_sum_to_one() -> None:
    logits = torch.randn(1, 1, 1, 2, 3)
    images = torch.tensor([[(code >> bit) & 1 for bit in range(6)] for code in range(64)]).float().reshape(64, 1, 2, 3)
    p = PixelBernoulli(logits.expand(1, 64, 1, 2, 3))
    assert p.log_prob(images).exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert p.sample((4000,)).mean((0, 1, 2)).sub(logits.sigmoid()[0, 0]).abs().max() < 0.01


@pytest.mark.parametrize("x", [-0.01, 1.01, -1.0, math.nan])
def test_bernoulli_refuses_pixels_outside_the_unit_interval(x: float) -> None:
    p = PixelBernoulli(torch.zeros(1, 1, 1, 1, 1), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.full((1, 1, 1, 1), x))


def test_plain_gaussian_density_is_torchs_normal() -> None:
    loc, x = torch.randn(2, 3, 1, 4, 5), torch.randn(3, 1, 4, 5)
    log_sigma = torch.tensor(-0.7)
    reference = Normal(loc, log_sigma.exp()).log_prob(x).sum((-3, -2, -1))
    torch.testing.assert_close(PixelGaussian(loc, log_sigma).log_prob(x), reference)


def level_probabilities(loc: float, sigma: float) -> torch.Tensor:
    locs = torch.full((1, 256, 1, 1, 1), loc)
    p = DiscretizedGaussian(locs, torch.tensor(math.log(sigma)))
    return p.log_prob(LEVELS.reshape(256, 1, 1, 1))[0].exp()


@pytest.mark.parametrize("sigma", [1 / 255 / 8, 0.002, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("loc", [0.0, 0.1234, 0.5, 0.9999, 1.0, -0.3, 1.7])
def test_the_256_probabilities_sum_to_one(loc: float, sigma: float) -> None:
    assert level_probabilities(loc, sigma).sum().item() == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("sigma", [0.002, 0.05, 0.3])
@pytest.mark.parametrize("loc", [0.0, 0.3, 1.0])
def test_discretized_probabilities_are_differences_of_phi(loc: float, sigma: float) -> None:
    edges = (torch.arange(257, dtype=torch.float64) - 0.5) / 255
    edges[0], edges[-1] = -math.inf, math.inf
    exact = Normal(torch.tensor(loc, dtype=torch.float64), sigma).cdf(edges).diff()
    torch.testing.assert_close(level_probabilities(loc, sigma).double(), exact, atol=1e-5, rtol=1e-3)


def test_discretized_log_probabilities_stay_finite_and_falling_far_from_the_mean() -> None:
    loc = torch.zeros(1, 256, 1, 1, 1, requires_grad=True)
    log_sigma = torch.tensor(math.log(1 / 255 / 8), requires_grad=True)
    log_p = DiscretizedGaussian(loc, log_sigma).log_prob(LEVELS.reshape(256, 1, 1, 1))[0]
    assert log_p.isfinite().all()
    assert (log_p.diff() < 0).all()
    log_p.sum().backward()
    assert loc.grad is not None
    assert log_sigma.grad is not None
    assert loc.grad.isfinite().all()
    assert log_sigma.grad.isfinite()


@pytest.mark.parametrize("sigma", [0.004, 0.1, 0.5])
@pytest.mark.parametrize("loc", [0.0, 0.02, 0.5, 1.0])
def test_discretized_mean_and_samples_are_those_of_its_probabilities(loc: float, sigma: float) -> None:
    probabilities = level_probabilities(loc, sigma)
    p = DiscretizedGaussian(torch.full((1, 1, 1, 1, 1), loc), torch.tensor(math.log(sigma)))
    assert p.mean.item() == pytest.approx((probabilities * LEVELS).sum().item(), abs=3e-4)
    counts = torch.bincount((p.sample((100_000,)).flatten() * 255).round().long(), minlength=256)
    assert (counts / 100_000 - probabilities).abs().max() < 0.01


@pytest.mark.parametrize("sigma", [0.004, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("level", [0, 1, 40, 128, 255])
def test_discretized_gradient_is_that_of_finite_differences(level: int, sigma: float) -> None:
    x = torch.tensor(level / 255, dtype=torch.float64).reshape(1, 1, 1, 1)
    loc = (x[None] + sigma * torch.tensor([-2.5, -0.3, 0.0, 0.2, 1.9]).double().reshape(5, 1, 1, 1, 1)).requires_grad_()
    log_sigma = torch.tensor(math.log(sigma), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *p: DiscretizedGaussian(*p).log_prob(x), (loc, log_sigma), rtol=1e-4)


def test_the_expected_square_is_the_mean_over_all_normals_that_give_the_level() -> None:
    t = 0.05 + 0.1 * torch.randn(4_000_000)
    x = (t.clamp(0, 1) * 255).round() / 255
    p = DiscretizedGaussian(torch.full((1, 3, 1, 1, 1), 0.05), torch.tensor(math.log(0.1)))
    levels = torch.tensor([0, 5, 40]) / 255
    expected = p.expected_square(levels.reshape(3, 1, 1, 1)).flatten()
    for level, square in zip(levels, expected, strict=True):
        seen = (t[x.sub(level).abs() < 1e-4] - 0.05).square().mean()
        assert square.item() == pytest.approx(seen.item(), rel=0.01)


def test_discretized_refuses_values_between_levels() -> None:
    p = DiscretizedGaussian(torch.zeros(1, 1, 1, 1, 1), torch.tensor(0.0), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.full((1, 1, 1, 1), 0.5 / 255))
    p.log_prob(torch.full((1, 1, 1, 1), 7 / 255))
