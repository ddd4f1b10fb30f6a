"""Densities of images against closed forms, sums and sampling."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import ContinuousBernoulli as Reference
from torch.distributions import Laplace, Normal, TransformedDistribution, Uniform
from torch.distributions.transforms import AffineTransform, SigmoidTransform

from vaekit.models.distributions import pixels
from vaekit.models.distributions.discretized import LAPLACE, LOGISTIC, NORMAL, LocScaleFamily
from vaekit.models.distributions.pixels import DiscretizedLocScale, LocScale, PixelBernoulli
from vaekit.models.likelihoods import Bernoulli

LEVELS = torch.arange(256) / 255


def logistic(loc: torch.Tensor, scale: torch.Tensor) -> TransformedDistribution:
    zero = torch.zeros_like(loc)
    transforms = [SigmoidTransform().inv, AffineTransform(loc, scale)]
    return TransformedDistribution(Uniform(zero, zero + 1), transforms)


NOISES = {"normal": (NORMAL, Normal), "laplace": (LAPLACE, Laplace), "logistic": (LOGISTIC, logistic)}
each_noise = pytest.mark.parametrize(("noise", "reference"), NOISES.values(), ids=NOISES)
each_power = pytest.mark.parametrize("noise", [NORMAL, LAPLACE], ids=["normal", "laplace"])


def test_bernoulli_is_the_binary_cross_entropy_summed_over_pixels() -> None:
    logits, x = 5 * torch.randn(2, 3, 1, 4, 5), torch.rand(3, 1, 4, 5)
    entropy = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
    reference = -entropy.sum((-3, -2, -1))
    torch.testing.assert_close(PixelBernoulli(logits).log_prob(x), reference)


def test_bernoulli_gradient_matches_finite_differences() -> None:
    logits = (5 * torch.randn(2, 3, 2, 2, 3, dtype=torch.float64)).requires_grad_()
    x = torch.rand(3, 2, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: PixelBernoulli(logits).log_prob(x), logits)


@pytest.mark.parametrize("x", [-0.01, 1.01, -1.0, math.nan])
def test_bernoulli_support_is_the_unit_interval(x: float) -> None:
    assert not Bernoulli.support.check(torch.full((1, 1, 1, 1), x)).any()


def continuous_bernoulli(logits: torch.Tensor) -> pixels.PixelContinuousBernoulli:
    return pixels.PixelContinuousBernoulli(logits.reshape(1, -1, 1, 1, 1))


@pytest.mark.parametrize("logit", [-30.0, -3.0, -1.0, 0.7, 2.0, 12.0])
def test_continuous_bernoulli_is_torchs(logit: float) -> None:
    x = torch.rand(50, dtype=torch.float64)
    logits = torch.full((50,), logit, dtype=torch.float64)
    reference, p = Reference(logits=logits), continuous_bernoulli(logits)
    log_p = p.log_prob(x.reshape(50, 1, 1, 1))[0]
    torch.testing.assert_close(log_p, reference.log_prob(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.mean.flatten(), reference.mean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("x", [0.0, 0.25, 0.5, 1.0])
def test_continuous_bernoulli_is_accurate_in_float32(x: float) -> None:
    """Value, gradient and mean in float32 against float64, where a quotient of the same formula cancels."""
    around = torch.logspace(-9, 4, 200)
    logits = torch.cat([-around.flip(0), torch.zeros(1), around, torch.tensor([0.999999, 1.0, 1.000001])])
    results = []
    for dtype in (torch.float32, torch.float64):
        free = logits.to(dtype, copy=True).requires_grad_()
        p = continuous_bernoulli(free)
        log_p = p.log_prob(torch.full((len(free), 1, 1, 1), x, dtype=dtype))
        log_p.sum().backward()
        results.append([t.detach().double().flatten() for t in (log_p, free.grad, p.mean)])
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single, double, rtol=2e-6, atol=5e-7)
    log_p, slope, mean = results[1]
    middle = len(around)
    assert (mean[middle].item(), log_p[middle].item()) == pytest.approx((0.5, 0.0), abs=1e-12)
    torch.testing.assert_close(slope, x - mean)
    torch.testing.assert_close(mean[middle + 1 : -3].log1p(), (1 - mean[:middle].flip(0)).log1p())
    near = around.double() < 1e-3
    small = mean[middle + 1 : -3][near] - 0.5
    torch.testing.assert_close(small, around.double()[near] / 12, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("logit", [-400.0, -2.0, -1e-6, 0.0, 1e-3, 5.0, 1e4])
def test_continuous_bernoulli_samples_match_its_cdf(logit: float) -> None:
    p = continuous_bernoulli(torch.tensor([logit]))
    x = p.sample((100_000,)).flatten().double()
    assert x.min() >= 0
    assert x.max() <= 1
    assert x.mean().item() == pytest.approx(p.mean.item(), abs=5 * x.std().item() / math.sqrt(len(x)) + 1e-9)
    if 0 < abs(logit) <= 5:
        for q in (0.1, 0.5, 0.9):
            below = math.expm1(logit * q) / math.expm1(logit)
            assert (x < q).double().mean().item() == pytest.approx(below, abs=0.008)


@each_noise
@pytest.mark.parametrize("shared", [True, False], ids=["one sigma", "a sigma per pixel"])
def test_plain_density_is_torchs(noise: LocScaleFamily, reference: type[Normal], shared: bool) -> None:
    loc, x = torch.randn(2, 3, 1, 4, 5), torch.randn(3, 1, 4, 5)
    log_sigma = torch.tensor(-0.7) if shared else torch.randn(2, 3, 1, 4, 5)
    exact = reference(loc, log_sigma.exp().expand_as(loc)).log_prob(x).sum((-3, -2, -1))
    torch.testing.assert_close(LocScale(loc, log_sigma, noise).log_prob(x), exact, rtol=1e-5, atol=1e-4)


def rounded(loc: float, sigma: float, noise: LocScaleFamily, count: int = 256) -> DiscretizedLocScale:
    return DiscretizedLocScale(torch.full((1, count, 1, 1, 1), loc), torch.tensor(math.log(sigma)), noise)


def level_probabilities(loc: float, sigma: float, noise: LocScaleFamily) -> torch.Tensor:
    return rounded(loc, sigma, noise).log_prob(LEVELS.reshape(256, 1, 1, 1))[0].exp()


@each_noise
@pytest.mark.parametrize("sigma", [1 / 255 / 8, 0.002, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("loc", [0.0, 0.1234, 0.5, 0.9999, 1.0, -0.3, 1.7])
def test_the_256_probabilities_sum_to_one(loc: float, sigma: float, noise: Any, reference: Any) -> None:
    assert level_probabilities(loc, sigma, noise).sum().item() == pytest.approx(1, abs=2e-4)


@each_noise
@pytest.mark.parametrize("sigma", [0.002, 0.05, 0.3, 5.0])
@pytest.mark.parametrize("loc", [0.0, 0.3, 0.3012, 1.0, 2.5])
def test_discretized_p_is_a_cdf_difference(loc: float, sigma: float, noise: Any, reference: Any) -> None:
    edges = (torch.arange(1, 256, dtype=torch.float64) - 0.5) / 255
    inner = reference(torch.tensor(loc).double(), torch.tensor(sigma).double()).cdf(edges)
    exact = torch.cat([torch.zeros(1).double(), inner, torch.ones(1).double()]).diff()
    torch.testing.assert_close(level_probabilities(loc, sigma, noise).double(), exact, atol=1e-5, rtol=1e-3)


@each_noise
def test_discretized_log_probabilities_decrease_and_stay_finite(noise: Any, reference: Any) -> None:
    loc = torch.zeros(1, 256, 1, 1, 1, requires_grad=True)
    log_sigma = torch.tensor(math.log(1 / 255 / 8), requires_grad=True)
    log_p = DiscretizedLocScale(loc, log_sigma, noise).log_prob(LEVELS.reshape(256, 1, 1, 1))[0]
    assert log_p.isfinite().all()
    assert (log_p.diff() < 0).all()
    log_p.sum().backward()
    assert loc.grad.isfinite().all()
    assert log_sigma.grad.isfinite()


@each_noise
@pytest.mark.parametrize("sigma", [0.004, 0.1, 0.5])
@pytest.mark.parametrize("loc", [0.0, 0.02, 0.5, 1.0, 1.3])
def test_discretized_samples_match_p(loc: float, sigma: float, noise: Any, reference: Any) -> None:
    probabilities = level_probabilities(loc, sigma, noise)
    p = rounded(loc, sigma, noise, count=1)
    assert p.mean.item() == pytest.approx((probabilities * LEVELS).sum().item(), abs=3e-4)
    counts = torch.bincount((p.sample((100_000,)).flatten() * 255).round().long(), minlength=256)
    assert (counts / 100_000 - probabilities).abs().max() < 0.01


@each_noise
@pytest.mark.parametrize("sigma", [0.004, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("level", [0, 1, 40, 128, 255])
@pytest.mark.parametrize("shared", [True, False], ids=["one sigma", "a sigma per pixel"])
def test_discretized_gradient(level: int, sigma: float, shared: bool, noise: Any, reference: Any) -> None:
    x = torch.tensor(level / 255, dtype=torch.float64).reshape(1, 1, 1, 1)
    steps = torch.tensor([-2.5, -0.3, 0.01, 0.2, 1.9]).double().reshape(5, 1, 1, 1, 1)
    loc = (x[None] + sigma * steps).requires_grad_()
    log_sigma = torch.tensor(math.log(sigma), dtype=torch.float64)
    log_sigma = (log_sigma if shared else log_sigma.expand_as(loc).clone()).requires_grad_()

    def log_p(*p: torch.Tensor) -> torch.Tensor:
        return DiscretizedLocScale(*p, noise).log_prob(x)

    assert torch.autograd.gradcheck(log_p, (loc, log_sigma), rtol=1e-4)


@each_power
def test_expected_power_matches_monte_carlo(noise: LocScaleFamily) -> None:
    t = 0.05 + 0.1 * noise.fill(torch.empty(4_000_000))
    x = (t.clamp(0, 1) * 255).round() / 255
    levels = torch.tensor([0, 5, 13, 40]) / 255
    expected = rounded(0.05, 0.1, noise, count=4).expected_power(levels.reshape(4, 1, 1, 1)).flatten()
    for level, power in zip(levels, expected, strict=True):
        seen = (t[x.sub(level).abs() < 1e-4] - 0.05).abs().pow(noise.power).mean()
        assert power.item() == pytest.approx(seen.item(), rel=0.01)


@each_power
@pytest.mark.parametrize("sigma", [1 / 255 / 8, 0.01, 10.0])
def test_expected_power_is_finite_and_within_the_level(noise: LocScaleFamily, sigma: float) -> None:
    levels = LEVELS.reshape(256, 1, 1, 1)
    expected = rounded(0.3, sigma, noise).expected_power(levels).flatten()
    distance = (LEVELS - 0.3).abs()
    nearest, farthest = (distance - 1 / 510).clamp(min=0), distance + 1 / 510
    assert expected.isfinite().all()
    assert (expected >= 0.97 * nearest.pow(noise.power) - 1e-3 * sigma**noise.power).all()
    inner = slice(1, -1)
    assert (expected[inner] <= 1.03 * farthest[inner].pow(noise.power) + 1e-3 * sigma**noise.power).all()


def images(count: int, size: int = 28) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, size, size)) / 255


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """In units of its standard error."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) * math.sqrt(a.numel())


def test_binarized_pixels_are_white_with_their_probability() -> None:
    x = images(2000)
    bits = pixels.deterministic_binarize(x, 0)
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    for level in range(0, 256, 15):
        chosen = bits[(x * 255).round() == level]
        p = level / 255
        assert chosen.mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / len(chosen)))


def test_binarized_pixels_are_independent() -> None:
    x = images(2000)
    z = (pixels.deterministic_binarize(x, 0) - x) / (x * (1 - x) + 1e-6).sqrt()
    for other in (z.roll(1, -1), z.roll(1, -2), z.roll(1, 0), z.roll(7, -1)):
        assert abs(correlation(z, other)) < 4.5
    assert abs(correlation(z, (pixels.deterministic_binarize(x, 1) - x) / (x * (1 - x) + 1e-6).sqrt())) < 4.5
    flat = torch.full((2000, 1, 28, 28), 0.5)
    flat[:, 0, 0, 0] = torch.arange(2000) % 256 / 255
    flat[:, 0, 0, 1] = torch.arange(2000) // 256 / 255
    drawn = pixels.deterministic_binarize(flat, 0)[:, 0, 1:] - 0.5
    assert abs(correlation(drawn, drawn.roll(1, 0))) < 4.5
    per_place = drawn.mean(0) * 2 * math.sqrt(2000)
    assert per_place.std().item() == pytest.approx(1, abs=0.12)
    assert drawn.mean((1, 2)).mul(2 * math.sqrt(27 * 28)).std().item() == pytest.approx(1, abs=0.08)


def test_binarized_pixels_depend_on_image_and_seed_only() -> None:
    x = images(6)
    bits = pixels.deterministic_binarize(x, 5)
    assert torch.equal(pixels.deterministic_binarize(x[2:4].flip(0), 5), bits[2:4].flip(0))
    assert torch.equal(pixels.deterministic_binarize(x.double(), 5).float(), bits)
    assert not torch.equal(pixels.deterministic_binarize(x, 6), bits)


def test_binarized_pixels_never_change_between_versions() -> None:
    """A change here changes every likelihood that was measured on such pixels."""
    x = (torch.arange(64) * 4).reshape(1, 1, 8, 8) / 255
    word = sum(int(bit) << i for i, bit in enumerate(pixels.deterministic_binarize(x, 0).flatten().tolist()))
    assert hex(word) == "0xffdf7d27304c0010"
