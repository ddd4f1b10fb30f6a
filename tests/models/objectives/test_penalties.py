"""Objectives that look at the aggregate posterior, against closed forms and computations by hand."""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MultivariateNormal, Normal
from torch.distributions import MixtureSameFamily as Mixed

from vaekit.config.objectives import DipConfig, ElboConfig, L2Config, MmdConfig, TotalCorrelationConfig
from vaekit.models.distributions.latents import DiagonalGaussian
from vaekit.models.objectives import penalties
from vaekit.models.objectives.elbo import Elbo
from vaekit.models.objectives.penalties import L2, Dip, Mmd, TotalCorrelation, similarity, squared_mmd
from vaekit.models.registry import BuildContext
from vaekit.models.terms import Group, Terms

MEAN = torch.tensor([[1.0, 0.0], [-2.0, 0.5], [0.4, 3.0]])
VARIANCE = torch.tensor([[1.0, 1.0], [0.25, 4.0], [0.5, 0.1]])
LOG_PX = torch.tensor([[-10.0, -20.0, -30.0]])


def terms(q: Distribution | None = None, p: Distribution | None = None, z: Tensor | None = None) -> Terms:
    q = DiagonalGaussian(MEAN, VARIANCE.log()) if q is None else q
    z = q.rsample((1,)) if z is None else z
    log_px = LOG_PX if z.shape[1] == 3 else torch.zeros(z.shape[:2])
    zeros = torch.zeros(z.shape[-1])
    return Terms(log_px, (Group(z, q, DiagonalGaussian(zeros, zeros) if p is None else p),))


class Given(DiagonalGaussian):
    """A prior whose draws are written out."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        assert tuple(sample_shape) == (3,)
        return torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])


def imq(squares: float) -> float:
    return sum(4 * c / (4 * c + squares) for c in (0.1, 0.2, 0.5, 1, 2, 5, 10)) / 7


@pytest.mark.parametrize(("kernel", "k"), [("imq", imq), ("rbf", lambda squares: math.exp(-squares / 2))])
def test_mmd_by_hand(kernel: Any, k: Any) -> None:
    """Encodings (0,0), (3,0), (0,1); prior draws (0,0), (1,0), (0,2); squared distances written out."""
    z = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]]])
    within = (k(9) + k(1) + k(10)) / 3
    prior = (k(1) + k(4) + k(5)) / 3
    # an encoding and a draw of the same number are no pair
    across = (k(1) + k(4) + k(9) + k(13) + k(1) + k(2)) / 6
    expected = within + prior - 2 * across
    loss, report = Mmd(MmdConfig(weight=7.0, kernel=kernel))(terms(p=Given(*torch.zeros(2, 2)), z=z))
    assert list(report) == ["loss", "reconstruction", "mmd"]
    assert report["mmd"].item() == pytest.approx(expected, abs=1e-6)
    assert loss.item() == pytest.approx(20 + 7 * expected, rel=1e-6)


def test_mmd_adds_the_kl_and_points_to_the_prior() -> None:
    _, report = Mmd(MmdConfig(weight=0.0, beta=3.0))(terms())
    _, elbo = Elbo(ElboConfig())(terms())
    torch.testing.assert_close(report["kl"], elbo["kl"])
    torch.testing.assert_close(report["loss"], elbo["reconstruction"] + 3 * elbo["kl"])
    loc = torch.full((64, 2), 5.0, requires_grad=True)
    loss, _ = Mmd(MmdConfig())(terms(DiagonalGaussian(loc, torch.full((64, 2), -60.0))))
    loss.backward()
    assert loc.grad.isfinite().all()
    assert (loc.grad.sum(0) > 0).all()


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_of_equal_distributions_is_zero_on_average(kernel: Any) -> None:
    """Over 500 pairs of samples; pairs of a point with itself would add 2 (1 - E k) / 16."""
    estimates = torch.stack([squared_mmd(torch.randn(16, 3), torch.randn(16, 3), kernel) for _ in range(500)])
    error = estimates.std().item() / math.sqrt(500)
    bias = 2 * (1 - similarity(torch.randn(500, 3), torch.randn(500, 3), kernel).mean().item()) / 16
    assert abs(estimates.mean().item()) < 4 * error < bias / 5
    assert estimates.min() < 0


def test_mmd_between_gaussians_has_its_closed_form() -> None:
    """For exp(-d^2 / D): E k = prod (D / w)^(1/2) exp(-shift^2 / w), w = D + 2 s + 2 t."""
    shift, variance, latents, count = torch.tensor([1.0, 0.0, -0.5]), 0.3, 3, 4000

    def expected(of: float, to: float, apart: Tensor) -> float:
        width = latents + 2 * of + 2 * to
        return (latents / width) ** (latents / 2) * math.exp(-apart.square().sum().item() / width)

    within = expected(variance, variance, 0 * shift) + expected(1, 1, 0 * shift)
    exact = within - 2 * expected(variance, 1, shift)
    q = DiagonalGaussian(shift.expand(count, 3), torch.full((count, 3), math.log(variance)))
    _, report = Mmd(MmdConfig(kernel="rbf"))(terms(q))
    assert report["mmd"].item() == pytest.approx(exact, rel=0.05)


def test_mmd_draws_from_the_prior_of_each_image() -> None:
    sharp = DiagonalGaussian(MEAN, torch.full((3, 2), -30.0))
    _, report = Mmd(MmdConfig())(terms(sharp, sharp, MEAN[None]))
    assert report["mmd"].item() == pytest.approx(0, abs=1e-5)
    _, report = Mmd(MmdConfig())(terms(sharp, DiagonalGaussian(MEAN + 9, sharp.log_variance), MEAN[None]))
    assert report["mmd"].item() > 0.01


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_detects_confused_labels(kernel: Any) -> None:
    places, y = torch.tensor([[3.0, 0.0], [0.0, -1.0]]), torch.arange(400) % 2
    a, b = places[y] + 0.1 * torch.randn(400, 2), places[1 - y] + 0.1 * torch.randn(400, 2)
    assert squared_mmd(a, b, kernel).abs() < 0.01
    assert squared_mmd(a, b, kernel, y) > 1
    assert squared_mmd(a, b.roll(1, 0), kernel, y).abs() < 0.01


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_with_labels_by_hand(kernel: Any) -> None:
    y = torch.tensor([0, 0, 1, 1, 1])
    places = torch.tensor([[3.0, 0.0], [0.0, -1.0]])
    a, b = places[y] + 0.1 * torch.randn(5, 2), places[1 - y] + 0.1 * torch.randn(5, 2)
    k = {(p, q): similarity(x, z, kernel) for p, x in (("a", a), ("b", b)) for q, z in (("a", a), ("b", b))}
    pairs = [(0, 1), (1, 0), *((i, j) for i in (2, 3, 4) for j in (2, 3, 4) if i != j)]
    terms_by_hand = [k["a", "a"][p] + k["b", "b"][p] - k["a", "b"][p] - k["a", "b"][p[::-1]] for p in pairs]
    by_hand = sum(terms_by_hand) / len(pairs)
    torch.testing.assert_close(squared_mmd(a, b, kernel, y), by_hand)
    q = DiagonalGaussian(a, torch.full((5, 2), -30.0))
    inputs = Terms(torch.zeros(1, 5), (Group(a[None], q, DiagonalGaussian(b, q.log_variance)),), y)
    assert Mmd(MmdConfig(kernel=kernel))(inputs)[1]["mmd"].item() == pytest.approx(by_hand.item(), abs=1e-4)


def test_penalties_of_one_image_are_zero() -> None:
    _, report = Mmd(MmdConfig())(terms(DiagonalGaussian(MEAN[:1], VARIANCE[:1].log())))
    assert report["mmd"].item() == 0
    inputs = terms(DiagonalGaussian(MEAN[:1], VARIANCE[:1].log()))
    _, report = TotalCorrelation(TotalCorrelationConfig(), BuildContext(images=100))(inputs)
    assert report["mutual_information"].item() == pytest.approx(0, abs=1e-6)
    assert report["total_correlation"].item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="number of training images"):
        TotalCorrelation(TotalCorrelationConfig())(inputs)


@pytest.mark.parametrize("samples", [1, 3])
def test_total_correlation_terms_add_up_to_kl(samples: int) -> None:
    q = DiagonalGaussian(MEAN, VARIANCE.log())
    inputs = terms(q, z=q.rsample((samples,)))
    (group,) = inputs.groups
    _, report = TotalCorrelation(TotalCorrelationConfig(), BuildContext(images=50))(inputs)
    total = report["mutual_information"] + report["total_correlation"] + report["dimension_wise_kl"]
    torch.testing.assert_close(total, (group.log_q - group.log_p).mean())


def test_total_correlation_weights_each_term() -> None:
    inputs = terms()
    weights = TotalCorrelationConfig(alpha=2.0, beta=3.0, gamma=5.0)
    loss, report = TotalCorrelation(weights, BuildContext(images=50))(inputs)
    weighted = 2 * report["mutual_information"] + 3 * report["total_correlation"]
    weighted = weighted + 5 * report["dimension_wise_kl"]
    torch.testing.assert_close(loss, report["reconstruction"] + weighted)
    assert report["reconstruction"].item() == pytest.approx(20)
    torch.testing.assert_close(report["kl"], Elbo(ElboConfig())(inputs)[1]["kl"])


def test_full_batch_gives_the_exact_aggregate_posterior() -> None:
    inputs = terms()
    (group,) = inputs.groups
    _, report = TotalCorrelation(TotalCorrelationConfig(), BuildContext(images=3))(inputs)
    each = Normal(MEAN, VARIANCE.sqrt())
    even = Categorical(torch.ones(3))
    joint = Mixed(even, Independent(each, 1)).log_prob(group.z)
    parts = [Mixed(even, Normal(MEAN[:, d], VARIANCE[:, d].sqrt())) for d in (0, 1)]
    marginals = sum(part.log_prob(group.z[..., d]) for d, part in enumerate(parts))
    log_q_x = each.log_prob(group.z).sum(-1)
    torch.testing.assert_close(report["mutual_information"], (log_q_x - joint).mean())
    torch.testing.assert_close(report["total_correlation"], (joint - marginals).mean())
    torch.testing.assert_close(report["dimension_wise_kl"], (marginals - group.log_p).mean())


def test_aggregate_posterior_estimate_is_unbiased() -> None:
    """Over all batches of 3 out of 6 images the mean estimate of q(z) is exact."""
    q = torch.rand(6)
    estimates = []
    for others in combinations(range(1, 6), 2):
        shares = penalties.stratified_log_weights(3, 6, q).exp()
        estimates.append((shares[0] * q[[0, *others]]).sum())
    torch.testing.assert_close(torch.stack(estimates).mean(), q.mean())
    torch.testing.assert_close(penalties.stratified_log_weights(3, 6, q).exp().sum(1), torch.ones(3))


def test_total_correlation_of_gaussians_has_its_closed_form() -> None:
    """Means of covariance C and variance v give q(z) = N(0, C + v)."""
    covariance, variance, count = torch.tensor([[1.0, 0.8], [0.8, 1.0]]), 0.1, 2000
    means = MultivariateNormal(torch.zeros(2), covariance).sample((count,))
    q = DiagonalGaussian(means, torch.full((count, 2), math.log(variance)))
    _, report = TotalCorrelation(TotalCorrelationConfig(), BuildContext(images=10**6))(terms(q))
    total = covariance + variance * torch.eye(2)
    log_det = torch.logdet(total).item()
    assert report["mutual_information"].item() == pytest.approx(0.5 * log_det - math.log(variance), abs=0.1)
    assert report["total_correlation"].item() == pytest.approx(math.log(1.1) - 0.5 * log_det, abs=0.1)
    assert report["dimension_wise_kl"].item() == pytest.approx(1.1 - 1 - math.log(1.1), abs=0.05)
    loc = (1000 * torch.arange(8.0)[:, None].expand(8, 4)).clone().requires_grad_()
    q = DiagonalGaussian(loc, torch.full((8, 4), -15.0))
    loss, report = TotalCorrelation(TotalCorrelationConfig(), BuildContext(images=100))(terms(q))
    loss.backward()
    assert report["mutual_information"].item() == pytest.approx(math.log(100), rel=1e-3)
    assert report["total_correlation"].item() == pytest.approx(3 * math.log(100), rel=1e-3)
    assert loc.grad.isfinite().all()


def test_dip_by_hand() -> None:
    """Means of variances 2/3 and covariance -2/3; mean posterior variances 1/2 and 2."""
    variance = torch.tensor([[0.25, 1.0], [0.5, 2.0], [0.75, 3.0]])
    q = DiagonalGaussian(torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.0, 1.0]]), variance.log())
    kl = Elbo(ElboConfig())(terms(q))[1]["kl"].item()
    loss, report = Dip(DipConfig(off_diagonal=3.0, diagonal=5.0))(terms(q))
    assert report["dip_off_diagonal"].item() == pytest.approx(8 / 9)
    assert report["dip_diagonal"].item() == pytest.approx(2 / 9)
    assert report["kl"].item() == pytest.approx(kl)
    assert loss.item() == pytest.approx(20 + kl + 3 * 8 / 9 + 5 * 2 / 9)
    _, report = Dip(DipConfig(variant="2"))(terms(q))
    assert report["dip_off_diagonal"].item() == pytest.approx(8 / 9)
    assert report["dip_diagonal"].item() == pytest.approx((1 / 6) ** 2 + (5 / 3) ** 2)
    loc = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    inside = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).expand(3, 2, 2)
    p = MultivariateNormal(torch.zeros(2), torch.eye(2))
    inputs = terms(MultivariateNormal(loc, inside), p)
    assert Dip(DipConfig(variant="1"))(inputs)[1]["dip_off_diagonal"].item() == pytest.approx(0)
    _, report = Dip(DipConfig(variant="2"))(inputs)
    assert report["dip_off_diagonal"].item() == pytest.approx(2 * 0.25)
    assert report["dip_diagonal"].item() == pytest.approx((2 + 2 / 3 - 1) ** 2)


def test_l2_is_half_the_squared_length() -> None:
    loss, report = L2(L2Config(weight=4.0))(terms(z=MEAN[None]))
    half = ((1 + 0) + (4 + 0.25) + (0.16 + 9)) / 3 / 2
    assert list(report) == ["loss", "reconstruction", "l2"]
    assert report["l2"].item() == pytest.approx(half)
    assert loss.item() == pytest.approx(20 + 4 * half)
    assert L2(L2Config(weight=0.0))(terms())[0].item() == pytest.approx(20)
