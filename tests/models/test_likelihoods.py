"""Every registered likelihood with every choice of its settings."""

import math
from itertools import product
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import vaekit.models.likelihoods  # noqa: F401  registers them
from vaekit.config.config import settings_classes
from vaekit.config.overrides import resolve
from vaekit.models.builder import build
from vaekit.models.registry import BuildContext, Capability, components, make_component

LEVELS = torch.arange(256) / 255
BINARY = [
    kind
    for kind, likelihood in components("likelihood").items()
    if Capability.NORMALIZED not in likelihood.provides
    and getattr(likelihood, "likelihood_kind", "") == "probability"
]
"""Probabilities of pixels 0 and 1."""


def choices(kind: str) -> list[dict[str, str]]:
    fields = settings_classes("likelihood")[kind].model_fields
    choices = {n: f for n, f in fields.items() if get_origin(f.annotation) is Literal and n != "kind"}
    options = {name: get_args(field.annotation) for name, field in choices.items()}
    return [dict(zip(options, combination, strict=True)) for combination in product(*options.values())]


EVERY = [(kind, settings) for kind in components("likelihood") for settings in choices(kind)]
IDS = ["-".join([kind, *settings.values()]) for kind, settings in EVERY]
every = pytest.mark.parametrize(("kind", "settings"), EVERY, ids=IDS)


def make(kind: str, channels: int = 1, **settings: Any) -> Any:
    context = BuildContext((channels, 1, 1))
    return make_component("likelihood", settings_classes("likelihood")[kind](**settings), context).eval()


def pixels_and_weights(kind: str, likelihood: Any) -> tuple[Tensor, Tensor]:
    """Points and weights of the sum or the numeric integral of p over a pixel."""
    if kind in BINARY:
        return torch.tensor([0.0, 1.0]), torch.ones(2)
    if Capability.NORMALIZED in likelihood.provides:
        return LEVELS, torch.ones(256)
    points = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    if likelihood.support is constraints.real:
        points = torch.sinh(14 * points - 7)
    weights = torch.gradient(points)[0]
    weights[[0, -1]] /= 2
    return points.float(), weights.float()


def probabilities(likelihood: Any, output: Tensor, points: Tensor) -> Tensor:
    """p of every point, for one pixel whose output is [outputs]."""
    everywhere = output.reshape(1, 1, -1, 1, 1).expand(1, len(points), -1, 1, 1)
    p: Tensor = likelihood(everywhere).log_prob(points.reshape(-1, 1, 1, 1))[0].exp()
    return p


def outputs(likelihood: Any, count: int, size: float = 1.0) -> Tensor:
    return torch.randn(count, likelihood.outputs) * size


@every
def test_probabilities_sum_to_one(kind: str, settings: dict[str, str]) -> None:
    likelihood = make(kind, **settings)
    points, weights = pixels_and_weights(kind, likelihood)
    cases = [outputs(likelihood, 5), outputs(likelihood, 5, 0.01), outputs(likelihood, 3, 2.0)]
    for output in torch.cat(cases):
        p = probabilities(likelihood, output, points)
        # the error of the integral, where a density is narrow
        error = 0.1 * p.max().item() * weights.min().item() if len(points) > 256 else 0
        assert (p * weights).sum().item() == pytest.approx(1, abs=3e-4 + error)


@every
def test_mean_and_samples_are_those_of_the_probabilities(kind: str, settings: dict[str, str]) -> None:
    likelihood = make(kind, **settings)
    points, weights = pixels_and_weights(kind, likelihood)
    for output in outputs(likelihood, 3, 0.7):
        p = probabilities(likelihood, output, points) * weights
        mean = (p * points).sum().item()
        px = likelihood(output.reshape(1, 1, -1, 1, 1))
        assert px.mean.shape == (1, 1, 1, 1, 1)
        assert px.mean.item() == pytest.approx(mean, abs=5e-4)
        x = px.sample((50_000,))
        assert x.shape == (50_000, 1, 1, 1, 1, 1)
        assert likelihood.support.check(x).all()
        x = x.flatten()
        assert x.mean().item() == pytest.approx(mean, abs=5 * x.std().item() / math.sqrt(len(x)) + 1e-6)
        for share in (0.1, 0.5, 0.9):
            cut = points[(p.cumsum(0) >= share).nonzero()[0, 0]].item() + 1e-4
            assert (x < cut).double().mean().item() == pytest.approx(p[points < cut].sum().item(), abs=0.012)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@every
def test_shapes_and_sums_over_pixels(kind: str, settings: dict[str, str], channels: int) -> None:
    likelihood = make(kind, channels, **settings)
    output = torch.randn(3, 5, likelihood.outputs, 2, 4)
    x = torch.randint(0, 2, (5, channels, 2, 4)).float()
    px = likelihood(output, x)
    assert (px.batch_shape, px.event_shape) == ((3, 5), (channels, 2, 4))
    assert px.mean.shape == px.sample().shape == (3, 5, channels, 2, 4)
    assert px.sample((7,)).shape == (7, 3, 5, channels, 2, 4)
    log_p = px.log_prob(x)
    assert log_p.shape == (3, 5)
    places = [(slice(i, i + 1), slice(j, j + 1)) for i in range(2) for j in range(4)]
    alone = [likelihood(output[1:2, 2:3, :, i, j]).log_prob(x[2:3, :, i, j]) for i, j in places]
    assert sum(alone).item() == pytest.approx(log_p[1, 2].item(), rel=1e-4, abs=1e-4)
    without_samples = likelihood(output[0])
    torch.testing.assert_close(without_samples.log_prob(x), log_p[0])


@pytest.mark.parametrize("channels", [1, 3])
@every
def test_pixels_sum_to_log_prob(kind: str, settings: dict[str, str], channels: int) -> None:
    """In a model, where each pixel of the map depends on that pixel of the image alone."""
    networks = {"encoder": "mlp", "decoder": "mlp", "latents": 3}
    config = resolve(networks, {"likelihood": {"kind": kind, **settings}})
    model, _ = build(config, (channels, 4, 5))
    model.eval()
    x = torch.randint(0, 2, (6, channels, 4, 5)).float()
    with torch.no_grad():
        z = torch.randn(6, 3)
        log_p = model.pixel_log_prob(z, x)
        torch.testing.assert_close(log_p.sum((1, 2)), model.decode(z).log_prob(x), rtol=1e-5, atol=1e-4)
        x[:, :, 2, 1] = 1 - x[:, :, 2, 1]
        changed = (model.pixel_log_prob(z, x) != log_p).any(0)
    assert changed.nonzero().tolist() == [[2, 1]]


@pytest.mark.parametrize("size", [1e-6, 1.0, 50.0, 1e4, 1e8])
@every
def test_extreme_outputs_have_finite_gradients(kind: str, settings: dict[str, str], size: float) -> None:
    likelihood = make(kind, 2, **settings)
    signs = torch.randint(-1, 2, (1, 64, likelihood.outputs, 1, 3)).float()
    output = (signs * size).requires_grad_()
    x = torch.tensor([0.0, 1.0] if kind in BINARY else [0.0, 1 / 255, 128 / 255, 1.0])
    x = x[torch.randint(0, len(x), (64, 2, 1, 3))]
    px = likelihood(output, x)
    log_p = px.log_prob(x)
    log_p.sum().backward()
    for values in (log_p, output.grad, px.mean, px.sample(), *(p.grad for p in likelihood.parameters())):
        assert values.isfinite().all()


@pytest.mark.parametrize(("size", "tolerance"), [(0.01, 1e-3), (1.0, 2e-3), (6.0, 0.1)])
@every
def test_float32_matches_float64(kind: str, settings: dict[str, str], size: float, tolerance: float) -> None:
    """Log-probability, gradient and mean; the last tolerance is for a million nats."""
    likelihood = make(kind, 2, **settings)
    output = outputs(likelihood, 64, size).reshape(1, 64, -1, 1, 1)
    binary = kind in BINARY
    x = torch.randint(0, 2 if binary else 256, (64, 2, 1, 1)) / (1 if binary else 255)
    results = []
    for dtype in (torch.float32, torch.float64):
        free = output.to(dtype, copy=True).requires_grad_()
        exact = x.to(dtype) if kind in BINARY else (x * 255).round().to(dtype) / 255
        px = likelihood.to(dtype)(free)
        log_p = px.log_prob(exact)
        log_p.sum().backward()
        results.append((log_p.detach().double(), free.grad.double(), px.mean.detach().double()))
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single, double, rtol=tolerance, atol=tolerance)


def test_binarized_resamples_in_training_only() -> None:
    x = torch.rand(50, 1, 28, 28)
    likelihood = make("binarized")
    first = likelihood.prepare_target(x)
    assert torch.equal(likelihood.prepare_target(x), first)
    assert torch.equal(make("binarized", draw="once").train().prepare_target(x), first)
    assert not torch.equal(make("binarized", seed=1).prepare_target(x), first)
    likelihood.train()
    draws = torch.stack([likelihood.prepare_target(x) for _ in range(200)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    deviation = (draws.mean(0) - x) / (x * (1 - x) / 200 + 1e-6).sqrt()
    assert deviation.std().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("training", [False, True], ids=["use", "training"])
@pytest.mark.parametrize("draw", ["step", "once"])
def test_binarized_likelihood_keeps_black_and_white(draw: str, training: bool) -> None:
    x = (torch.rand(50, 1, 28, 28) > 0.5).float()
    assert torch.equal(make("binarized", draw=draw).train(training).prepare_target(x), x)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("levels", ["256", "none"])
@pytest.mark.parametrize("dark", [False, True], ids=["noise", "mostly black"])
def test_optimal_sigma_maximizes_likelihood_and_is_frozen_in_eval(kind: str, dark: bool, levels: str) -> None:
    likelihood = make(kind, sigma="optimal", levels=levels).train()
    x = torch.randint(0, 256, (8, 1, 8, 8)) / 255
    if dark:
        x = x * (torch.rand_like(x) < 0.2)
    output = torch.full((1, 8, 1, 8, 8), -2.0)
    for _ in range(5000):
        likelihood(output, x)
    likelihood.eval()
    log_sigma = likelihood.log_sigma.clone()
    scores = []
    for shift in (-0.03, 0.0, 0.03):
        likelihood.log_sigma.copy_(log_sigma + shift)
        scores.append(likelihood(output).log_prob(x).mean().item())
    assert scores[1] > max(scores[0], scores[2])
    likelihood.log_sigma.copy_(log_sigma)
    likelihood(output, x / 2)
    assert torch.equal(likelihood.log_sigma, log_sigma)


@pytest.mark.parametrize(("kind", "power"), [("gaussian", 2), ("laplace", 1)])
def test_optimal_sigma_of_a_density_is_exact_after_one_step(kind: str, power: int) -> None:
    likelihood = make(kind, sigma="optimal", levels="none").train()
    x, output = torch.rand(8, 1, 8, 8), torch.full((1, 8, 1, 8, 8), 0.3)
    likelihood(output, x)
    expected = (x - 0.3).abs().pow(power).mean() ** (1 / power)
    torch.testing.assert_close(likelihood.log_sigma.exp(), expected)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("levels", ["256", "none"])
def test_sigma_per_pixel_starts_at_scale_and_follows_output(kind: str, levels: str) -> None:
    pixel, fixed = (make(kind, 2, sigma=sigma, scale=0.2, levels=levels) for sigma in ("pixel", "fixed"))
    assert (pixel.outputs, fixed.outputs) == (4, 2)
    loc, x = torch.randn(1, 3, 2, 2, 2), torch.randint(0, 256, (3, 2, 2, 2)) / 255
    same = pixel(torch.cat([loc, torch.zeros_like(loc)], 2))
    torch.testing.assert_close(same.log_prob(x), fixed(loc).log_prob(x))
    further = torch.zeros_like(loc)
    further[0, 1, 1, 0, 1] = math.log(2)
    moved = pixel(torch.cat([loc, further], 2)).log_prob(x)
    wide = make(kind, 2, sigma="fixed", scale=0.4, levels=levels)
    by_hand = fixed(loc).log_prob(x)
    cut = (slice(1, 2), slice(1, 2), slice(0, 1), slice(1, 2))
    by_hand[0, 1] += _single(wide, loc, x, cut) - _single(fixed, loc, x, cut)
    torch.testing.assert_close(moved, by_hand)


def _single(likelihood: Any, loc: Tensor, x: Tensor, cut: tuple[slice, ...]) -> Tensor:
    log_p: Tensor = likelihood(loc[(slice(None), *cut)]).log_prob(x[cut])
    return log_p[0, 0]


def mixture_by_hand(output: Tensor, x: Tensor, K: int, C: int) -> float:
    """log P of one colour x [C], from the outputs of its pixel: Salimans et al. 2017, equations 1 to 3."""
    output, x = output.double(), x.double()
    logits, rest = output[:K], output[K:]
    loc, rest = rest[: C * K].reshape(C, K), rest[C * K :]
    scale = 0.1 * rest[: C * K].reshape(C, K).exp()
    coupling = iter(rest[C * K :].reshape(-1, K).tanh())
    joint = logits.softmax(0)
    for c in range(C):
        mean = loc[c] + (torch.arange(K) + 0.5) / K
        for j in range(c):
            mean = mean + next(coupling) * (x[j] - 0.5)
        upper = (x[c] + 1 / 510 - mean) / scale[c] if x[c] < 0.999 else torch.full((K,), math.inf)
        lower = (x[c] - 1 / 510 - mean) / scale[c] if x[c] > 0.001 else torch.full((K,), -math.inf)
        low, high = upper.sigmoid() - lower.sigmoid(), (-lower).sigmoid() - (-upper).sigmoid()
        near = torch.where(x[c] > mean, high, low)
        joint = joint * near
    return joint.sum().log().item()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("components", [1, 3])
def test_logistic_mixture_matches_the_paper(channels: int, components: int) -> None:
    likelihood = make("logistic_mixture", channels, components=components)
    assert likelihood.outputs == components * (1 + 2 * channels + channels * (channels - 1) // 2)
    output = outputs(likelihood, 30, 0.5)
    x = torch.randint(0, 256, (30, channels)) / 255
    x[:10] = x[:10].round()
    log_p = likelihood(output.reshape(1, 30, -1, 1, 1)).log_prob(x.reshape(30, channels, 1, 1))[0]
    by_hand = [mixture_by_hand(o, c, components, channels) for o, c in zip(output, x, strict=True)]
    torch.testing.assert_close(log_p, torch.tensor(by_hand), rtol=1e-4, atol=1e-4)


def all_colours() -> Tensor:
    return torch.cartesian_prod(LEVELS, LEVELS).reshape(-1, 2, 1, 1)


@pytest.mark.parametrize("size", [0.0, 0.5, 2.0])
def test_two_channel_probabilities_sum_to_one_and_match_samples(size: float) -> None:
    likelihood = make("logistic_mixture", 2)
    output = outputs(likelihood, 1, size).reshape(1, 1, -1, 1, 1)
    x = all_colours()
    p = likelihood(output.expand(1, len(x), -1, 1, 1)).log_prob(x)[0].double().exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-4)
    px = likelihood(output)
    mean = (p[:, None] * x[:, :, 0, 0]).sum(0)
    torch.testing.assert_close(px.mean.flatten().double(), mean, atol=4e-3, rtol=0)
    counted = px.sample((200_000,)).flatten(1)
    joint = p.reshape(16, 16, 16, 16).sum((1, 3))
    cell = (counted * 255).round().long() // 16
    seen = torch.bincount(cell[:, 0] * 16 + cell[:, 1], minlength=256) / len(counted)
    assert (seen - joint.flatten()).abs().max() < 0.004
    centred = x[:, :, 0, 0].double() - mean
    covariance = (p * centred.prod(1)).sum().item()
    assert counted.T.cov()[0, 1].item() == pytest.approx(covariance, abs=1.5e-3)


@pytest.mark.parametrize("channels", [3, 4])
def test_mean_of_logistic_mixture_matches_samples(channels: int) -> None:
    likelihood = make("logistic_mixture", channels)
    px = likelihood(torch.randn(1, 1, likelihood.outputs, 4, 4))
    torch.testing.assert_close(px.mean, px.sample((40_000,)).mean(0), atol=0.012, rtol=0)


def test_mixture_components_start_spread() -> None:
    px = make("logistic_mixture")(torch.zeros(1, 1, 15, 1, 1))
    assert px.loc.flatten().tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert px.log_sigma.exp().flatten().tolist() == pytest.approx([0.1] * 5)
    assert px.mean.item() == pytest.approx(0.5)


@every
def test_inverse_mean_gives_the_mean(kind: str, settings: dict[str, str]) -> None:
    likelihood = make(kind, channels=3, **settings)
    mean = 0.3 + 0.4 * torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    if (output := likelihood.inverse_mean(mean)) is None:
        pytest.skip("its decoders start where they are")
    actual = likelihood(output[None, None]).mean
    # Noise that is clipped at black and white moves a mean a little; nothing else does
    tolerance = 0.04 if Capability.NORMALIZED in likelihood.provides else 1e-4
    torch.testing.assert_close(actual[0, 0], mean, rtol=0, atol=tolerance)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["gaussian", "laplace", "logistic_mixture"])
def test_white_and_black_are_shown_as_white_and_black(kind: str, channels: int) -> None:
    """The mean of noise that is clipped at white is 14 to 20 levels darker."""
    settings = {"components": 1} if kind == "logistic_mixture" else {"scale": 0.15}
    likelihood = make(kind, channels=channels, **settings)
    level = torch.tensor([0.0, 1.0]).expand(channels, 1, 2)
    px = likelihood(likelihood.inverse_mean(level)[None, None])
    torch.testing.assert_close(px.location[0, 0], level, rtol=0, atol=1 / 510)
    assert 14 < 255 * (px.mean[0, 0] - level).abs().min() < 21


def test_location_is_clipped_to_the_unit_interval_or_the_mean_is_shown() -> None:
    output = torch.linspace(-4, 4, 9)[None, None, None, None]
    for kind in ("bernoulli", "binarized", "continuous_bernoulli"):
        assert not hasattr(make(kind)(output), "location")
    assert torch.equal(make("gaussian", levels="none")(output).location, output.clamp(0, 1))
