"""The ELBO against a computation by hand."""

import math

import pytest
import torch

from vaekit.parts.distributions import DiagonalGaussian, StandardNormal
from vaekit.parts.objectives import Elbo
from vaekit.parts.types import Group, Terms

# Two images, two latents, three samples of z; all numbers written out
MEAN = torch.tensor([[1.0, 0.0], [-2.0, 0.5]])
VARIANCE = torch.tensor([[1.0, 1.0], [0.25, 4.0]])
LOG_PX = torch.tensor([[-10.0, -20.0], [-11.0, -21.0], [-12.0, -25.0]])
KL = [[0.5, 0.0], [0.5 * (4 + 0.25 - 1 - math.log(0.25)), 0.5 * (0.25 + 4 - 1 - math.log(4))]]
KL_MEAN = (KL[0][0] + KL[0][1] + KL[1][0] + KL[1][1]) / 2


def terms() -> Terms:
    q = DiagonalGaussian(MEAN, VARIANCE.log())
    return Terms(LOG_PX, (Group(q.rsample((3,)), q, StandardNormal(2)),))


def test_elbo_is_mean_reconstruction_plus_kl_summed_over_latents() -> None:
    loss, report = Elbo()(terms())
    assert report["reconstruction"].item() == pytest.approx((10 + 11 + 12 + 20 + 21 + 25) / 6)
    assert report["kl"].item() == pytest.approx(KL_MEAN)
    assert loss.item() == pytest.approx(16.5 + KL_MEAN)


def test_beta_weighs_the_kl_alone_and_the_report_stays_in_nats() -> None:
    loss, report = Elbo(beta=4.0)(terms())
    assert loss.item() == pytest.approx(16.5 + 4 * KL_MEAN)
    assert report["kl"].item() == pytest.approx(KL_MEAN)


@pytest.mark.parametrize(("epoch", "share"), [(0.0, 0), (2.5, 0.25), (10.0, 1), (99.0, 1), (math.inf, 1)])
def test_warmup_raises_beta_linearly_and_ends_at_its_value(epoch: float, share: float) -> None:
    loss, _ = Elbo(beta=2.0, warmup=10.0)(terms(), epoch)
    assert loss.item() == pytest.approx(16.5 + 2 * share * KL_MEAN)


def test_free_bits_charge_each_latent_at_least_their_worth() -> None:
    first, second = (KL[0][0] + KL[1][0]) / 2, (KL[0][1] + KL[1][1]) / 2
    loss, _ = Elbo(free_bits=1.0)(terms())
    assert first > 1 > second
    assert loss.item() == pytest.approx(16.5 + first + 1.0)


def test_a_posterior_without_closed_form_is_charged_by_its_samples() -> None:
    """The same Gaussian, but of a class for which no formula is known."""

    class Opaque(DiagonalGaussian):
        pass

    q = Opaque(MEAN, VARIANCE.log())
    group = Group(q.rsample((100_000,)), q, StandardNormal(2))
    assert group.kl_per_latent is None
    assert group.kl.shape == (100_000, 2)
    torch.testing.assert_close(group.kl.mean(0), torch.tensor(KL).sum(1), atol=0.03, rtol=0)
