"""Every registered posterior and prior: its density, its samples, its divergence."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vaekit.config.base import BaseConfig
from vaekit.config.config import settings_classes
from vaekit.config.latents import FlowPriorConfig, FullGaussianPosteriorConfig
from vaekit.config.objectives import DregConfig, IwaeConfig
from vaekit.config.overrides import resolve
from vaekit.models.builder import build
from vaekit.models.distributions.latents import DiagonalGaussian, Flow, FullGaussian, Mixture, tempered
from vaekit.models.objectives.importance import Dreg, Iwae
from vaekit.models.registry import BuildContext, Capability, components, make_component
from vaekit.models.single_level import rsample_with_log_prob
from vaekit.models.terms import Group, Objective
from vaekit.models.vae import VAE

IMAGES, CLASSES = 3, 2
POSTERIORS = [k for k, q in components("posterior").items() if Capability.DENSITY_AT_SAMPLE in q.provides]
PRIORS = list(components("prior"))
DETACHABLE = [k for k in POSTERIORS if Capability.DETACHABLE_DENSITY in components("posterior")[k].provides]


def setting_choices(settings: type[BaseConfig]) -> list[dict[str, Any]]:
    fields = settings.model_fields.items()
    options = {n: get_args(f.annotation) for n, f in fields if get_origin(f.annotation) is Literal}
    return [dict(zip(options, chosen, strict=True)) for chosen in product(*options.values())]


KINDS = [("posterior", kind) for kind in POSTERIORS] + [("prior", kind) for kind in PRIORS]
EVERY = [(slot, choice) for slot, kind in KINDS for choice in setting_choices(settings_classes(slot)[kind])]


@pytest.fixture(autouse=True)
def precise() -> Iterator[None]:
    """Splines can be steep: in 64 bits a grid tells a wrong density from a rounded one."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def model_of(latents: int, **layers: Any) -> VAE:
    """A small model, conditional so that every prior is legal, with weights away from where they start."""
    for slot in ("posterior", "prior"):
        component = layers.get(slot, {"kind": "normal" if slot == "prior" else "gaussian"})
        component = {"kind": component} if isinstance(component, str) else component
        small = {"hidden": 8, "steps": 3, "context": 4, "components": 6}
        fields = settings_classes(slot)[component["kind"]].model_fields
        layers[slot] = component | {k: v for k, v in small.items() if k in fields}
    base = {"latents": latents, "conditional": True, "encoder": {"kind": "mlp", "hidden": 8}}
    config = resolve(base | layers)
    model, _ = build(config, (1, 2, 2), CLASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(IMAGES, 1, 2, 2, generator=generator), torch.arange(IMAGES) % CLASSES


def distribution(slot: str, kind: str, latents: int, **settings: Any) -> Distribution:
    model = model_of(latents, **{slot: {"kind": kind, **settings}})
    return model.encode(*data()) if slot == "posterior" else model.prior(model.encode, data()[1])


def grid(latents: int, count: int = 501) -> tuple[Tensor, float]:
    """Points of a fine grid in 1 or 2 dimensions [N, D], and the volume that each stands for."""
    line = torch.linspace(-100, 100, 50_001) if latents == 1 else torch.linspace(-14, 14, count)
    points = torch.cartesian_prod(*[line] * latents).reshape(-1, latents)
    return points, (line[1] - line[0]).item() ** latents


def density(p: Distribution, points: Tensor) -> Tensor:
    """[N, B], B = 1 for a distribution without a batch."""
    wide = p.log_prob(points[:, None].expand(-1, max(1, math.prod(p.batch_shape)), -1))
    return wide.reshape(len(points), -1).exp()


@pytest.mark.parametrize("latents", [1, 2])
@pytest.mark.parametrize(("slot", "kind"), KINDS)
def test_densities_integrate_to_one(slot: str, kind: str, latents: int) -> None:
    points, volume = grid(latents)
    total = density(distribution(slot, kind, latents), points).sum(0) * volume
    torch.testing.assert_close(total, torch.ones_like(total), atol=0.005, rtol=0)


def assert_samples_match(p: Distribution, z: Tensor) -> None:
    """Samples [N, B, D] against integrals of the density: moments, and shares of quarters of the plane."""
    points, volume = grid(2)
    inside = density(p, points) * volume
    z = z.reshape(len(z), -1, 2)
    for power in (lambda t: t, torch.square, lambda t: t.prod(-1, keepdim=True)):
        drawn, error = power(z).mean(0), power(z).std(0) / math.sqrt(len(z))
        expected = (inside.T @ power(points)).expand_as(drawn)
        assert ((drawn - expected).abs() < 4.5 * error + 1e-3).all()
    for sign in ((1, 1), (1, -1), (-1, 1)):
        corner = (points * torch.tensor(sign) > 0.2).all(1)
        share = (z * torch.tensor(sign) > 0.2).all(-1).double().mean(0)
        expected = (inside * corner[:, None]).sum(0)
        torch.testing.assert_close(share, expected.expand_as(share), atol=0.012, rtol=0)


@pytest.mark.parametrize(("slot", "kind"), KINDS)
def test_samples_match_their_density(slot: str, kind: str) -> None:
    p = distribution(slot, kind, 2)
    assert_samples_match(p, p.sample((40_000,)))
    if slot == "posterior":
        assert_samples_match(p, p.rsample((40_000,)))


@pytest.mark.parametrize("kind", POSTERIORS)
def test_density_returned_with_sample_matches_log_prob(kind: str) -> None:
    q = distribution("posterior", kind, 5)
    z, log_q = rsample_with_log_prob(q, 50)
    log_q_sample = q.log_prob(z) if log_q is None else log_q
    assert log_q_sample.shape == (50, IMAGES)
    torch.testing.assert_close(log_q_sample, q.log_prob(z), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("slot", "choice"), EVERY, ids=str)
def test_flow_jacobians_match_autograd_and_round_trips_are_exact(slot: str, choice: dict[str, Any]) -> None:
    model = model_of(3, **{slot: choice})
    x, y = data()
    flow = model.encode(x, y) if slot == "posterior" else model.prior(model.encode, y)
    if not isinstance(flow, Flow):
        assert choice["kind"] not in ("iaf", "nsf", "flow")
        return
    for z in torch.randn(5, 3):
        wide = z.expand(IMAGES, 3) if slot == "posterior" else z[None]
        there, log_det = flow.transform.inv.call_and_ladj(wide)
        jacobian = torch.autograd.functional.jacobian(lambda w: flow.transform.inv(w).sum(0), wide)
        expected = torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet
        torch.testing.assert_close(log_det, expected)
        torch.testing.assert_close(flow.transform(there), wide, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(flow.transform.call_and_ladj(there)[1], -log_det, atol=1e-8, rtol=1e-8)


def test_coupling_is_affine_in_realnvp_and_nonlinear_in_spline() -> None:
    bent = {}
    for transform in ("realnvp", "spline"):
        settings = FlowPriorConfig(transform=transform, steps=1, hidden=(8,))
        prior = make_component("prior", settings, BuildContext(latents=(2,)))
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
            line = torch.stack([torch.linspace(-2, 2, 41)] * 2, 1)
            line[:, 0] = 0.3
            across = torch.stack([line[:, 1], line[:, 0]], 1)
            carried = [prior(lambda x, y: DiagonalGaussian(x, x)).transform(z) for z in (line, across)]
        moved = carried[0][:, 1], carried[1][:, 0]
        bent[transform] = max(t.diff().diff().abs().max().item() for t in moved)
    assert bent["realnvp"] < 1e-12
    assert bent["spline"] > 1e-4


@pytest.mark.parametrize("prior_kind", PRIORS)
@pytest.mark.parametrize("kind", POSTERIORS)
def test_kl_matches_samples(kind: str, prior_kind: str) -> None:
    """By Monte Carlo; without a closed form by the integral of q log q / p over a grid."""
    if Capability.DENSITY_ANYWHERE not in components("posterior")[kind].provides and prior_kind == "vamp":
        pytest.skip("no density for the pseudo-inputs")
    model = model_of(2, posterior=kind, prior=prior_kind)
    x, y = data()
    q, p = model.encode(x, y), model.prior(model.encode, y)
    slow = (kind, prior_kind) == ("nsf", "vamp")  # every draw under every pseudo-input's flow
    z, log_q = rsample_with_log_prob(q, 5_000 if slow else 40_000)
    group = Group(z, q, p, log_q)
    sampled = group.log_q - group.log_p
    error = sampled.std(0) / math.sqrt(len(sampled))
    if group.kl.ndim == 1:
        expected = group.kl
    else:
        points, volume = grid(2, 201 if slow else 351)
        wide = points[:, None].expand(-1, IMAGES, -1)
        log_ratio = q.log_prob(wide) - p.log_prob(wide)
        expected = (q.log_prob(wide).exp() * log_ratio).nan_to_num(0.0).sum(0) * volume
        torch.testing.assert_close(group.kl, sampled)
    assert ((expected - sampled.mean(0)).abs() <= 4 * error + 1e-3).all()
    assert (expected > -1e-3).all()
    parts = components("posterior")[kind], components("prior")[prior_kind]
    factorised = all(Capability.FACTORIZED in part.provides for part in parts)
    assert (group.kl_per_latent is not None) == factorised
    if group.kl_per_latent is not None:
        torch.testing.assert_close(group.kl_per_latent.sum(-1), group.kl)


@pytest.mark.parametrize("kind", PRIORS)
def test_temperature_scales_only_the_noise(kind: str) -> None:
    p = distribution("prior", kind, 2)
    assert tempered(p, 1.0) is p
    cold = tempered(p, 0.5)
    noise, less = (getattr(one, "components", getattr(one, "base", one)) for one in (p, cold))
    torch.testing.assert_close(less.stddev, 0.5 * noise.stddev)
    torch.testing.assert_close(less.mean, noise.mean)
    if isinstance(p, Flow):
        assert cold.transform is p.transform
    if isinstance(p, Mixture):
        torch.testing.assert_close(cold.logits, p.logits)
    assert_samples_match(cold, cold.sample((40_000,)))
    points = len(noise.mean.reshape(-1, 2).unique(dim=0))
    drawn = tempered(p, 0.0).sample((64,)).reshape(-1, 2)
    assert len(torch.round(drawn, decimals=6).unique(dim=0)) <= points


@pytest.mark.parametrize("prior_kind", PRIORS)
@pytest.mark.parametrize("kind", DETACHABLE)
def test_dreg_has_the_mean_gradient_of_iwae_for_every_weight(kind: str, prior_kind: str) -> None:
    """Means over 60 blocks of 300 draws are within 4.5 standard errors for every weight."""
    model = model_of(2, posterior=kind, prior=prior_kind).requires_grad_(True)
    x, y = (t.repeat_interleave(100, 0) for t in data())
    weights = [w for slot in (model.encoder, model.posterior, model.prior) for w in slot.parameters()]

    def blocks(objective: Objective) -> Tensor:
        grads = [torch.autograd.grad(objective(model.terms(x, y, 4))[0], weights) for _ in range(60)]
        return torch.stack([torch.cat([g.flatten() for g in each]) for each in grads])

    plain, doubly = (blocks(one) for one in (Iwae(IwaeConfig(samples=4)), Dreg(DregConfig(samples=4))))
    error = ((plain.var(0) + doubly.var(0)) / 60).sqrt()
    assert ((plain.mean(0) - doubly.mean(0)).abs() <= 4.5 * error + 1e-9).all()


@pytest.mark.parametrize("latents", [4, 32])
def test_full_gaussian_density_of_samples_is_accurate_in_float32(latents: int) -> None:
    """By the noise itself, and in 32 bits; against the solved one in 64."""
    torch.set_default_dtype(torch.float32)
    context = BuildContext(latents=(latents,), features=(3,))
    posterior = make_component("posterior", FullGaussianPosteriorConfig(), context)
    with torch.no_grad():
        posterior.head.weight.mul_(3)
        q = posterior(torch.randn(50, 3))
        torch.manual_seed(5)
        _, log_q = rsample_with_log_prob(q, 20)
        torch.manual_seed(5)
        loc, tril, noise = q.loc.double(), q.scale_tril.double(), torch.randn(20, 50, latents).double()
        z = loc + (tril @ noise.unsqueeze(-1)).squeeze(-1)
        expected = MultivariateNormal(loc, scale_tril=tril).log_prob(z)
        torch.testing.assert_close(log_q.double(), expected, atol=0.01, rtol=1e-4)
    assert (q.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt() < math.exp(7.5) * 1.01).all()


def test_mixture_density_is_computed_in_chunks() -> None:
    count, latents = 64, 16
    tril = 0.2 * torch.randn(count, latents, latents).tril(-1) + torch.eye(latents)
    mixture = Mixture(torch.randn(count), FullGaussian(torch.randn(count, latents), tril))
    z = torch.randn(3, 1000, latents)
    assert z[..., 0].numel() * count * latents > 2 * Mixture.MAX_ELEMENTS
    expected = torch.cat([mixture.log_prob(one[None]) for one in z[1, 340:350]])
    torch.testing.assert_close(mixture.log_prob(z)[1, 340:350], expected)
    matrices = zip(mixture.logits.exp(), mixture.components.loc, tril, strict=True)
    by_hand = sum(s * MultivariateNormal(m, scale_tril=t).log_prob(z[2, 7]).exp() for s, m, t in matrices)
    torch.testing.assert_close(mixture.log_prob(z)[2, 7], by_hand.log())


def test_mixture_of_narrow_gaussians_is_accurate_in_float32() -> None:
    loc, log_variance = 3 * torch.randn(20, 8), torch.full((20, 8), 2 * math.log(1e-3))
    z = loc[:5] + 1e-3 * torch.randn(5, 8)
    exact = Mixture(torch.zeros(20), DiagonalGaussian(loc, log_variance)).log_prob(z)
    parts = zip(loc, log_variance, strict=True)
    by_hand = torch.stack([DiagonalGaussian(m, v).log_prob(z) for m, v in parts], 1)
    torch.testing.assert_close(exact, by_hand.logsumexp(1) - math.log(20))
    narrow = DiagonalGaussian(loc.float(), log_variance.float())
    single = Mixture(torch.zeros(20).float(), narrow).log_prob(z.float())
    moved = loc.float().double()[:5] - z.float().double()
    log_density = -0.5 * ((moved / 1e-3).square() + log_variance[:5] + math.log(2 * math.pi)).sum(1)
    expected = log_density - math.log(20)
    torch.testing.assert_close(single.double(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("conditional", [False, True])
def test_pseudo_inputs_start_from_images_and_labels(conditional: bool) -> None:
    prior = {"kind": "vamp", "components": 4}
    model, _ = build(resolve({"prior": prior, "conditional": conditional, "encoder": "mlp"}), (1, 8, 8), 3)
    x, z = torch.rand(4, 1, 8, 8), torch.randn(3, 2, 32)
    y = torch.tensor([2, 0, 2, 1]) if conditional else None
    model.prior.init_from_data(x, y)
    labels = [None] * 4 if y is None else y[:, None]
    each = torch.stack([model.encode(x[k : k + 1], labels[k]).log_prob(z) for k in range(4)])
    log_p = model.prior(model.encode, torch.zeros(2, dtype=torch.long)).log_prob(z)
    torch.testing.assert_close(log_p, each.logsumexp(0) - math.log(4), atol=1e-3, rtol=1e-4)


def test_an_unusual_image_cannot_make_the_posterior_wide() -> None:
    """Neither its KL nor the gradient of that is huge, and the log-variance can return."""
    context = BuildContext((1, 8, 8), (3,), features=(5,))
    posterior = make_component("posterior", settings_classes("posterior")["gaussian"](), context)
    with torch.no_grad():
        posterior.head.weight.zero_()
        posterior.head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 14.0, 1.0, -8.0]))
    q = posterior(torch.ones(2, 5))
    torch.testing.assert_close(q.variance[:, 0], torch.full((2,), 100.0))
    torch.testing.assert_close(q.variance[:, 1].log(), torch.full((2,), 15 * math.tanh(1 / 15)))
    kl = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum(1)
    kl.sum().backward()
    slope = posterior.head.bias.grad[3].item()
    assert kl.max() < 60 and 0 < slope < 100
