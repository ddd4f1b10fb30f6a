"""Flow matching: velocity, samples and log-density against a Gaussian, whose velocity is known."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaekit.latents.sampling import draw_latents, seeded
from vaekit.models.flow_matching import FlowMatching, VelocityError

SHAPES = [(5,), (2, 3, 4)]


def make(shape: tuple[int, ...], classes: int = 1) -> FlowMatching:
    settings = {"shape": list(shape), "channels": 8, "blocks": 1}
    record = {
        "name": "flow matching",
        "kind": "flow_matching",
        "latents": math.prod(shape),
        "classes": classes,
    }
    with seeded(0):
        return FlowMatching({**record, "settings": settings}).eval()


class GaussianVelocity(nn.Module):
    """E[z - e | x_t] for z ~ N(mean, S): mean + (t S - (1 - t) I) ((1 - t)^2 I + t^2 S)^-1 (x_t - t mean), by
    the conditional mean of jointly Gaussian variables. The mean of label k is k, without a label -1."""

    def __init__(self, covariance: Tensor) -> None:
        super().__init__()
        self.covariance = covariance

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        mean = torch.full((len(x), 1), -1.0) if y is None else y[:, None].float()
        eye, time = torch.eye(x.shape[1]), t[:, None, None]
        spread = (1 - time).square() * eye + time.square() * self.covariance
        gain = (time * self.covariance - (1 - time) * eye) @ torch.linalg.inv(spread)
        return mean + (gain @ (x - t[:, None] * mean)[..., None])[..., 0]


def gaussian(size: int, classes: int = 1) -> tuple[FlowMatching, Tensor]:
    model = make((size,), classes)
    factor = torch.randn(size, size, generator=torch.Generator().manual_seed(0)) / math.sqrt(size)
    covariance = factor @ factor.T + 0.1 * torch.eye(size)
    model.network = GaussianVelocity(covariance)
    model.loc.copy_(torch.linspace(-1, 2, size))
    model.scale.copy_(torch.linspace(0.5, 3, size))
    return model, covariance


def of_latents(
    model: FlowMatching, covariance: Tensor, mean: float
) -> torch.distributions.MultivariateNormal:
    scale = model.scale.diag()
    return torch.distributions.MultivariateNormal(model.loc + mean * model.scale, scale @ covariance @ scale)


@pytest.mark.parametrize("size", [3, 40], ids=["exact divergence", "Hutchinson"])
def test_log_density_of_a_gaussian(size: int) -> None:
    model, covariance = gaussian(size)
    model.steps = 50
    truth = of_latents(model, covariance, -1.0)
    z = truth.sample((40,))
    with seeded(1):
        error = model.log_prior(z) - truth.log_prob(z)
    if size == 3:
        assert error.abs().max() < 0.01
    else:  # unbiased
        assert error.mean().abs() < 4 * error.std() / math.sqrt(len(z)) + 0.01
        assert error.std() > 0.05


def test_log_density_given_the_class_and_samples_of_it() -> None:
    model, covariance = gaussian(3, classes=3)
    model.steps, model.guidance = 50, 1.0
    y = torch.tensor([0, 1, 2])
    z = torch.randn(3, 3)
    truth = torch.stack([of_latents(model, covariance, k).log_prob(z[k]) for k in range(3)])
    assert torch.allclose(model.log_prior(z, y), truth, rtol=2e-3)
    with seeded(1):
        drawn = model.sample_prior(4000, torch.full((4000,), 2))
    expected = of_latents(model, covariance, 3 + 2.0)  # the group's label
    errors = (drawn.mean(0) - expected.mean) / expected.stddev
    assert errors.abs().max() < 0.08
    assert (torch.cov(drawn.T) - expected.covariance_matrix).abs().max() < 0.1 * expected.variance.max()


def test_temperature_scales_the_noise_and_guidance_moves_away_from_all_classes() -> None:
    model, covariance = gaussian(3, classes=3)
    model.guidance = 1.0
    y = torch.full((4000,), 2)
    with seeded(1):
        cold = model.sample_prior(4000, y, temperature=0.5)
    expected = of_latents(model, covariance, 3 + 2.0)
    assert torch.allclose(cold.std(0), 0.5 * expected.stddev, rtol=0.06)
    model.guidance = 2.0  # the group's mean is 6 apart from that of all images
    with seeded(1):
        guided = model.sample_prior(4000, y)
    shift = ((guided.mean(0) - model.loc) / model.scale).mean()
    assert shift == pytest.approx(5 + 6, abs=0.1)


def test_the_error_of_the_sampler_falls_with_the_square_of_its_steps() -> None:
    model, _ = gaussian(3)
    model.guidance = 1.0

    def drawn(steps: int) -> Tensor:
        model.steps = steps
        with seeded(1):
            return model.sample_prior(100)

    exact = drawn(2000)
    coarse, fine = ((drawn(steps) - exact).norm().item() for steps in (40, 80))
    assert 3.5 < coarse / fine < 5


def test_groups_are_drawn_by_their_share_of_the_class() -> None:
    model, covariance = gaussian(1, classes=3)
    model.network = GaussianVelocity(1e-4 * covariance)
    model.loc.zero_()
    model.scale.fill_(1)
    model.guidance = 1.0
    model.set_groups(torch.tensor([0, 1, 1]), torch.tensor([60, 10, 30]))  # class 2 has no images

    def labels(y: Tensor | None) -> list[float]:
        with seeded(1):
            drawn = model.sample_prior(4000, y).round()[:, 0].long()
        return (torch.bincount(drawn, minlength=7) / len(drawn)).tolist()

    assert labels(None) == pytest.approx([0, 0, 0, 0.6, 0.1, 0.3, 0], abs=0.03)
    assert labels(torch.full((4000,), 1)) == pytest.approx([0, 0, 0, 0, 0.25, 0.75, 0], abs=0.03)
    assert labels(torch.full((4000,), 2)) == [0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_is_least_at_the_true_velocity(shape: tuple[int, ...]) -> None:
    """For z ~ N(0, I) it is E[z - e | x] = (2 t - 1) x / ((1 - t)^2 + t^2), with the variance 1 / ((1 - t)^2
    + t^2) left; more of it and less of it are worse."""
    model, size = make(shape), math.prod(shape)
    losses = {}
    x = torch.cat([torch.randn(20_000, size), torch.full((20_000, size), -30.0)], 1)
    for factor in (0.9, 1.0, 1.1):

        class Scaled(nn.Module):
            def forward(self, x: Tensor, t: Tensor, y: Any, factor: float = factor) -> Tensor:
                time = t[:, None]
                return factor * (2 * time - 1) * x / ((1 - time).square() + time.square())

        model.network = Scaled()
        with seeded(2):
            losses[factor] = VelocityError()(model.terms(x))[0].item()
    t = torch.sigmoid(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert losses[1.0] == pytest.approx((1 / ((1 - t).square() + t.square())).mean().item(), rel=0.01)
    assert losses[1.0] < min(losses[0.9], losses[1.1])


def test_units_are_those_of_draws_from_the_posteriors() -> None:
    model = make((2, 3, 4))
    loc = torch.randn(500, 24) * torch.tensor([2.0, 0.5]).repeat_interleave(12) + 3
    variance = torch.full((500, 24), 0.25)
    model.set_units(loc, variance)
    z = loc + 0.5 * torch.randn_like(loc)
    standardized = ((z - model.loc) / model.scale).unflatten(1, (2, 12))
    assert standardized.mean((0, 2)).abs().max() < 0.05
    assert (standardized.std((0, 2)) - 1).abs().max() < 0.05


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 1, 1), (3, 5, 4), (2, 7, 7)], ids=str)
@pytest.mark.parametrize("classes", [1, 3])
def test_every_parameter_learns_and_same_seed_gives_same_latents(
    shape: tuple[int, ...], classes: int
) -> None:
    model = make(shape, classes).train()
    size = math.prod(shape)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    y = torch.arange(60) % classes if classes > 1 else None
    for _ in range(3):  # the last layer starts at zero, and others before it learn after it
        optimizer.zero_grad()
        model.terms(torch.randn(60, 2 * size), y).mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    first, repeated, other = (draw_latents(model, 70, seed) for seed in (0, 0, 1))
    assert first.shape == (70, size)
    assert torch.equal(first, repeated)
    assert torch.equal(first[:5], draw_latents(model, 5, 0))
    assert not torch.equal(first, other)


def test_samples_and_density_follow_conditions() -> None:
    """Latents N(2 y, 0.1), of which the network knows y but for the tenth that is withheld."""
    record = {"name": "flow matching", "kind": "flow_matching", "latents": 2, "classes": 1}
    settings = {"shape": [2], "channels": 8, "blocks": 1, "conditions": 2}
    with seeded(0):
        model = FlowMatching({**record, "settings": settings})
        optimizer, y = torch.optim.Adam(model.parameters(), 0.01), torch.randn(4000, 2)
        x = torch.cat([2 * y, torch.full_like(y, math.log(0.1))], 1)
        model.set_units(2 * y, torch.full_like(y, 0.1))
        for step in range(300):
            rows = torch.arange(step * 128, (step + 1) * 128) % len(x)
            optimizer.zero_grad()
            model.terms(x[rows], y[rows]).mean().backward()
            optimizer.step()
    model.eval().requires_grad_(False)
    assert model.has_guidance and model.groups == 1 and model.guidance == 1
    for given in ([1.0, -1.0], [-1.5, 0.0]):
        drawn = draw_latents(model, 512, 1, torch.tensor([given]).expand(512, -1))
        assert drawn.mean(0).tolist() == pytest.approx([2 * number for number in given], abs=0.3)
        assert drawn.std(0).max() < 0.7
    everything = draw_latents(model, 512, 1)
    assert everything.std(0).min() > 1.3  # those of all images
    z = 2 * y[:200]
    gain = model.log_prior(z, y[:200]) - model.log_prior(z)
    assert gain.mean() > 1 and model.log_prior(z, -y[:200]).mean() < model.log_prior(z).mean()
    strong = draw_latents(model, 64, 1, torch.ones(64, 2)).mean()
    model.guidance = 2.0
    assert draw_latents(model, 64, 1, torch.ones(64, 2)).mean() > strong + 0.1
