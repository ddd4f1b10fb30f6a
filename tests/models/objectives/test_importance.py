"""Importance-weighted bounds on a linear-Gaussian model, whose exact log p(x) is known.

z ~ N(0, I), x = W z + b + s noise. The columns of W are orthogonal, so that the exact posterior has
independent latents: their precisions are 1 + |w_d|^2 / s^2 and their means w_d . (x - b) / s^2 over those.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from vaekit.config.objectives import DregConfig, ElboConfig, IwaeConfig, MiwaeConfig
from vaekit.models.distributions.latents import DiagonalGaussian, FullGaussian
from vaekit.models.objectives.elbo import Elbo
from vaekit.models.objectives.importance import Dreg, Iwae, Miwae, importance_bound
from vaekit.models.terms import Group, Objective, Terms

W = torch.tensor([[1.0, 1.0], [2.0, -0.5], [0.0, 0.3]], dtype=torch.float64)
B, S = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64), 0.7
PRECISION = 1 + W.square().sum(0) / S**2

PRIOR = DiagonalGaussian(torch.zeros(2), torch.zeros(2))


def images(count: int) -> Tensor:
    z = torch.randn(count, 2, dtype=torch.float64)
    return z @ W.T + B + S * torch.randn(count, 3, dtype=torch.float64)


def evidence(x: Tensor) -> Tensor:
    return MultivariateNormal(B, W @ W.T + S**2 * torch.eye(3, dtype=torch.float64)).log_prob(x)


def exact(x: Tensor) -> DiagonalGaussian:
    loc = (x - B) @ W / S**2 / PRECISION
    return DiagonalGaussian(loc, -PRECISION.log().expand_as(loc))


def wrong(x: Tensor) -> DiagonalGaussian:
    """Shifted by one of its standard deviations, and with twice the variance."""
    q = exact(x)
    return DiagonalGaussian(q.loc + q.stddev, q.log_variance + math.log(2))


def terms(x: Tensor, q: DiagonalGaussian, samples: int) -> Terms:
    z = q.rsample((samples,))
    return Terms(Normal(z @ W.T + B, S).log_prob(x).sum(-1), (Group(z, q, PRIOR),))


def test_orthogonal_columns_give_the_exact_posterior() -> None:
    assert (W[:, 0] @ W[:, 1]).item() == pytest.approx(0)
    x = images(4)
    z = torch.randn(4, 2, dtype=torch.float64)
    joint = PRIOR.log_prob(z) + Normal(z @ W.T + B, S).log_prob(x).sum(-1)
    torch.testing.assert_close(joint - exact(x).log_prob(z), evidence(x))


def test_importance_bound_by_hand() -> None:
    """Two samples of one image with weights 1 and 3: log 2; as two bounds of one sample, log 3 / 2."""
    log_w = torch.tensor([[0.0], [math.log(3)]])
    assert importance_bound(log_w).item() == pytest.approx(math.log(2))
    assert importance_bound(log_w, 2).item() == pytest.approx(math.log(3) / 2)
    assert importance_bound(log_w + 1000).item() == pytest.approx(1000 + math.log(2))


def test_bound_rises_with_samples_to_the_evidence() -> None:
    x = images(8)
    bounds = {}
    for samples, repeats in ((1, 20_000), (5, 5000), (50, 1000), (5000, 20)):
        many = x.repeat(repeats, 1)
        bounds[samples] = -Iwae(IwaeConfig(samples=samples))(terms(many, wrong(many), samples))[0].item()
    target = evidence(x).mean().item()
    gaps = [target - bound for bound in bounds.values()]
    # KL(wrong || exact) per latent is (2 + 1 - 1 - log 2) / 2, and with one sample it is the gap
    assert gaps[0] == pytest.approx(2 - math.log(2), abs=0.02)
    assert gaps[0] > 2 * gaps[1] > 10 * gaps[2] > 0.01
    assert abs(gaps[3]) < 0.006 < gaps[2]  # four standard errors


@pytest.mark.parametrize("samples", [1, 3, 20])
def test_exact_posterior_gives_evidence_with_any_number_of_samples(samples: int) -> None:
    x = images(8)
    miwae = Miwae(MiwaeConfig(samples=samples, bounds=samples))
    for objective in (Iwae(IwaeConfig(samples=samples)), Dreg(DregConfig(samples=samples)), miwae):
        loss, report = objective(terms(x, exact(x), samples))
        assert loss.item() == pytest.approx(-evidence(x).mean().item())
        assert report["kl"].item() == pytest.approx(terms(x, exact(x), 1).groups[0].kl.mean().item())


def test_miwae_lies_between_elbo_and_iwae() -> None:
    x = images(50)
    inputs = terms(x, wrong(x), 6)
    (group,) = inputs.groups
    by_sampling = -(inputs.log_px + group.log_p - group.log_q).mean()
    loss = {bounds: Miwae(MiwaeConfig(samples=6, bounds=bounds))(inputs)[0] for bounds in (1, 2, 6)}
    torch.testing.assert_close(loss[1], Iwae(IwaeConfig(samples=6))(inputs)[0])
    torch.testing.assert_close(loss[6], by_sampling)
    assert loss[1] < loss[2] < loss[6]
    halves = (inputs.log_px + group.log_p - group.log_q).split(3)
    torch.testing.assert_close(loss[2], -torch.stack([importance_bound(half) for half in halves]).mean())


def test_importance_weighted_objectives_report_the_kl_of_the_elbo() -> None:
    x = images(5)
    inputs = terms(x, wrong(x), 4)
    _, expected = Elbo(ElboConfig())(inputs)
    miwae = Miwae(MiwaeConfig(samples=4, bounds=2))
    for objective in (Iwae(IwaeConfig(samples=4)), Dreg(DregConfig(samples=4)), miwae):
        _, report = objective(inputs)
        assert list(report) == ["loss", "reconstruction", "kl"]
        torch.testing.assert_close(report["kl"], expected["kl"])
        torch.testing.assert_close(report["reconstruction"], expected["reconstruction"])


def test_importance_weights_multiply_over_groups() -> None:
    x = images(5)
    one, other = terms(x, wrong(x), 4), terms(x, exact(x), 4)
    both = Terms(one.log_px, (*one.groups, *other.groups))
    ratio = [group.log_p - group.log_q for group in both.groups]
    loss, _ = Iwae(IwaeConfig(samples=4))(both)
    torch.testing.assert_close(loss, -importance_bound(one.log_px + ratio[0] + ratio[1]))


class Small:
    """Linear encoder, learned Gaussian prior and tanh decoder, all in float64."""

    full = False
    """Whether the latents of q are correlated, the more the larger the first one's mean is."""

    def __init__(self) -> None:
        self.encoder = nn.Linear(3, 4).double()
        self.decoder = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        self.loc, self.log_variance = (nn.Parameter(0.3 * torch.randn(2).double()) for _ in range(2))
        self.inner = list(self.encoder.parameters())
        self.outer = [*self.decoder.parameters(), self.loc, self.log_variance]

    def terms(self, x: Tensor, samples: int) -> Terms:
        loc, log_variance = self.encoder(x).chunk(2, -1)
        q: DiagonalGaussian | FullGaussian = DiagonalGaussian(loc, log_variance)
        if self.full:
            lower = loc[:, :1, None] * torch.tensor([[0.0, 0.0], [1.0, 0.0]])
            q = FullGaussian(loc, q.stddev.diag_embed() + lower)
        z = q.rsample((samples,))
        log_px = Normal(self.decoder(z), S).log_prob(x).sum(-1)
        return Terms(log_px, (Group(z, q, DiagonalGaussian(self.loc, self.log_variance)),))


@pytest.fixture
def small() -> Small:
    return Small()


def gradient(make: Callable[[], Terms], objective: Objective, weights: Any, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    loss, _ = objective(make())
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, weights)])


@pytest.mark.parametrize("samples", [1, 8])
def test_dreg_has_the_value_and_the_decoder_gradient_of_iwae(small: Small, samples: int) -> None:
    x = images(6)
    iwae, dreg = Iwae(IwaeConfig(samples=samples)), Dreg(DregConfig(samples=samples))
    results = []
    for objective in (iwae, dreg):
        torch.manual_seed(3)
        loss, _ = objective(small.terms(x, samples))
        results.append([loss, *torch.autograd.grad(loss, small.outer)])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full covariance"])
def test_dreg_gradient_matches_the_formula(small: Small, full: bool) -> None:
    """Tucker et al. 2019, equation 8, with every derivative taken by itself."""
    small.full = full
    x = images(2)
    actual = gradient(lambda: small.terms(x, 3), Dreg(DregConfig(samples=3)), small.inner)
    torch.manual_seed(0)
    inputs = small.terms(x, 3)
    (group,) = inputs.groups
    log_w = inputs.log_px + group.log_p - group.log_q_detached
    (to_z,) = torch.autograd.grad(log_w.sum(), group.z, retain_graph=True)
    shares = (log_w - log_w.logsumexp(0)).exp().detach()
    expected = torch.zeros_like(actual)
    for s in range(3):
        for b in range(2):
            along = (group.z[s, b] * to_z[s, b].detach()).sum()
            grads = torch.autograd.grad(along, small.inner, retain_graph=True)
            expected -= shares[s, b] ** 2 * torch.cat([grad.flatten() for grad in grads]) / 2
    torch.testing.assert_close(actual, expected)


def test_dreg_has_the_expected_encoder_gradient_of_iwae(small: Small) -> None:
    """Means over 200 blocks of 2000 draws differ by at most 4.5 standard errors in each of 16 numbers (one
    failure in 10,000); with the single weight of Roeder et al. 2017 they differ by more."""
    x = images(2).repeat(2000, 1)

    def blocks(objective: Callable[[Terms], Tensor]) -> Tensor:
        rows = []
        for _ in range(200):
            grads = torch.autograd.grad(objective(small.terms(x, 4)), small.inner)
            rows.append(torch.cat([grad.flatten() for grad in grads]))
        return torch.stack(rows)

    def single(inputs: Terms) -> Tensor:
        (group,) = inputs.groups
        return -importance_bound(inputs.log_px + group.log_p - group.log_q_detached)

    iwae, dreg = Iwae(IwaeConfig(samples=4)), Dreg(DregConfig(samples=4))
    plain, doubly, biased = map(blocks, (lambda t: iwae(t)[0], lambda t: dreg(t)[0], single))

    def distances(a: Tensor, b: Tensor) -> Tensor:
        return (a.mean(0) - b.mean(0)).abs() / ((a.var(0) + b.var(0)) / 200).sqrt()

    assert distances(plain, doubly).max() < 4.5
    assert distances(plain, biased).max() > 20


@pytest.mark.parametrize("samples", [8, 32])
def test_dreg_is_less_noisy_for_a_trained_encoder(small: Small, samples: int) -> None:
    x = images(64)
    optimizer = torch.optim.Adam([*small.inner, *small.outer], lr=0.02)
    for _ in range(300):
        loss, _ = Iwae(IwaeConfig(samples=samples))(small.terms(x, samples))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def noise(objective: Objective) -> float:
        make = lambda: small.terms(x[:8], samples)  # noqa: E731
        gradients = torch.stack([gradient(make, objective, small.inner, seed) for seed in range(300)])
        return gradients.var(0).sum().item()

    ratio = noise(Iwae(IwaeConfig(samples=samples))) / noise(Dreg(DregConfig(samples=samples)))
    assert ratio > 2


def test_dreg_without_gradients_and_with_a_fixed_encoder(small: Small) -> None:
    x = images(4)
    with torch.no_grad():
        loss, _ = Dreg(DregConfig(samples=5))(small.terms(x, 5))
    assert not loss.requires_grad
    for parameter in small.inner:
        parameter.requires_grad_(False)
    loss, _ = Dreg(DregConfig(samples=5))(small.terms(x, 5))
    loss.backward()
    assert all(parameter.grad is not None for parameter in small.outer)
