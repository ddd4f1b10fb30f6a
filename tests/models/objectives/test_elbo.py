"""The ELBO against a computation by hand."""

import math

import pytest
import torch

from vaekit.config.objectives import ElboConfig
from vaekit.models.distributions.latents import DiagonalGaussian
from vaekit.models.objectives.elbo import Elbo
from vaekit.models.terms import Group, Terms

# Two images, two latents, three samples of z; all numbers written out
MEAN = torch.tensor([[1.0, 0.0], [-2.0, 0.5]])
VARIANCE = torch.tensor([[1.0, 1.0], [0.25, 4.0]])
LOG_PX = torch.tensor([[-10.0, -20.0], [-11.0, -21.0], [-12.0, -25.0]])
KL = [[0.5, 0.0], [0.5 * (4 + 0.25 - 1 - math.log(0.25)), 0.5 * (0.25 + 4 - 1 - math.log(4))]]
KL_MEAN = (KL[0][0] + KL[0][1] + KL[1][0] + KL[1][1]) / 2

PRIOR = DiagonalGaussian(torch.zeros(2), torch.zeros(2))


def terms() -> Terms:
    q = DiagonalGaussian(MEAN, VARIANCE.log())
    return Terms(LOG_PX, (Group(q.rsample((3,)), q, PRIOR),))


def test_elbo_is_reconstruction_plus_beta_times_kl() -> None:
    loss, report = Elbo(ElboConfig())(terms())
    assert report["reconstruction"].item() == pytest.approx((10 + 11 + 12 + 20 + 21 + 25) / 6)
    assert report["kl"].item() == pytest.approx(KL_MEAN)
    assert loss.item() == pytest.approx(16.5 + KL_MEAN)
    loss, report = Elbo(ElboConfig(beta=4.0))(terms())
    assert loss.item() == pytest.approx(16.5 + 4 * KL_MEAN)
    assert report["kl"].item() == pytest.approx(KL_MEAN)


@pytest.mark.parametrize(("epoch", "share"), [(0.0, 0), (2.5, 0.25), (10.0, 1), (99.0, 1), (math.inf, 1)])
def test_warmup_raises_beta_linearly_and_ends_at_its_value(epoch: float, share: float) -> None:
    loss, _ = Elbo(ElboConfig(beta=2.0, warmup=10.0))(terms(), epoch)
    assert loss.item() == pytest.approx(16.5 + 2 * share * KL_MEAN)


def test_free_bits_are_a_minimum_kl_that_warms_up() -> None:
    first, second = (KL[0][0] + KL[1][0]) / 2, (KL[0][1] + KL[1][1]) / 2
    loss, _ = Elbo(ElboConfig(free_bits=1.0))(terms())
    assert first > 1 > second
    assert loss.item() == pytest.approx(16.5 + first + 1.0)
    first = (KL[0][0] + KL[1][0]) / 2
    loss, _ = Elbo(ElboConfig(beta=2.0, warmup=4.0, free_bits=1.0))(terms(), 1.0)
    assert loss.item() == pytest.approx(16.5 + 2 * 0.25 * (first + 1.0))


def test_kl_without_closed_form_is_estimated_from_samples() -> None:
    class Opaque(DiagonalGaussian):
        pass

    q = Opaque(MEAN, VARIANCE.log())
    group = Group(q.rsample((100_000,)), q, PRIOR)
    assert group.kl_per_latent is None
    assert group.kl.shape == (100_000, 2)
    torch.testing.assert_close(group.kl.mean(0), torch.tensor(KL).sum(1), atol=0.03, rtol=0)


FIRST_CYCLE = [(0.0, 0), (2.0, 0.5), (4.0, 1), (6.0, 1), (7.9, 1)]
LATER_CYCLES = [(8.0, 0), (9.0, 0.25), (16.0, 0), (18.0, 0.5), (20.0, 1), (24.0, 1)]


@pytest.mark.parametrize(("epoch", "share"), FIRST_CYCLE + LATER_CYCLES)
def test_cyclical_warmup_restarts_at_zero(epoch: float, share: float) -> None:
    """Three rises of 4 epochs, each but the last followed by 4 epochs at the value."""
    objective = Elbo(ElboConfig(beta=2.0, warmup=4.0, cycles=3))
    assert objective.schedule_end == 20
    assert objective(terms(), epoch)[0].item() == pytest.approx(16.5 + 2 * share * KL_MEAN)
    assert objective(terms())[0].item() == pytest.approx(16.5 + 2 * KL_MEAN)


def test_cycles_need_a_warmup() -> None:
    with pytest.raises(ValueError, match="warm"):
        ElboConfig(cycles=5)


@pytest.mark.parametrize(("epoch", "held"), [(0.0, 0.0), (5.0, 10.0), (10.0, 20.0), (math.inf, 20.0)])
def test_capacity_rises_and_penalizes_distance_of_mean_kl(epoch: float, held: float) -> None:
    loss, report = Elbo(ElboConfig(beta=3.0, warmup=10.0, capacity=20.0))(terms(), epoch)
    assert loss.item() == pytest.approx(16.5 + 3 * abs(KL_MEAN - held))
    assert report["kl"].item() == pytest.approx(KL_MEAN)


def test_capacity_applies_to_the_mean_kl_of_the_batch() -> None:
    """2 nats lie between the two images' KLs, 0.5 and about 3.2."""
    loss, _ = Elbo(ElboConfig(capacity=2.0))(terms())
    assert sum(KL[0]) < 2 < sum(KL[1])
    assert loss.item() == pytest.approx(16.5 + abs(KL_MEAN - 2))
