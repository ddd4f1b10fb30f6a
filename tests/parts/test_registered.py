"""Every registered part, found by its registration: a new one is tested here without being named."""

import inspect
from typing import Any

import pytest
import torch

import vaekit.build  # noqa: F401  registers the parts
from vaekit.build import build
from vaekit.config import Config, parts_of
from vaekit.errors import UserError
from vaekit.parts.types import registered
from vaekit.resolve import resolve

ROOMS = ("encoder", "decoder", "posterior", "prior", "likelihood", "objective")
CONTEXT = {
    "encoder": {"shape", "classes"},
    "decoder": {"shape", "latents", "classes"},
    "posterior": {"features", "latents"},
    "prior": {"latents"},
    "likelihood": {"channels"},
    "objective": set(),
}
"""Arguments that the rest of the model decides."""
EVERY = [(room, kind) for room in ROOMS for kind in registered(room)]
SHAPES = [(1, 28, 28), (3, 13, 21), (1, 5, 3), (4, 40, 7), (2, 1, 1)]


def small(**layers: Any) -> Config:
    return resolve({"latents": 3, **layers})


def images(shape: tuple[int, int, int], count: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape)) / 255


@pytest.mark.parametrize("room", ROOMS)
def test_settings_and_parts_name_the_same_kinds(room: str) -> None:
    assert set(parts_of(room)) == set(registered(room))


@pytest.mark.parametrize(("room", "kind"), EVERY)
def test_settings_are_the_arguments_of_their_part(room: str, kind: str) -> None:
    settings = parts_of(room)[kind]
    arguments = inspect.signature(registered(room)[kind]).parameters
    assert set(arguments) == set(settings.model_fields) - {"kind"} | CONTEXT[room]
    for name, field in settings.model_fields.items():
        if name != "kind":
            assert field.description, f"{kind}.{name} needs help"
            assert arguments[name].default == field.default


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "conditional"])
@pytest.mark.parametrize("network", list(registered("encoder")))
def test_every_parameter_gets_a_gradient(network: str, conditional: bool, shape: tuple[int, int, int]) -> None:
    model, objective = build(small(encoder=network, decoder=network, conditional=conditional), shape, 3)
    x, y = images(shape), torch.arange(6) % 3 if conditional else None
    terms = model.terms(x, y, samples=2)
    assert terms.log_px.shape == (2, 6)
    loss, _ = objective(terms)
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "conditional"])
@pytest.mark.parametrize(("room", "kind"), EVERY)
def test_every_part_lowers_the_loss_of_a_toy_set(room: str, kind: str, conditional: bool) -> None:
    """And computes the same again from the same weights."""
    config = small(**{"encoder": "mlp", room: kind}, conditional=conditional)
    model, objective = build(config, (1, 6, 6), 2)
    x, y = (torch.rand(16, 1, 6, 6) > 0.5).float(), torch.arange(16) % 2 if conditional else None
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss, _ = objective(model.terms(x, y, objective.samples))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    twin, _ = build(config, (1, 6, 6), 2)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval().reconstruct(x, y), model.eval().reconstruct(x, y), rtol=0, atol=0)


@pytest.mark.parametrize("kind", list(registered("likelihood")))
def test_likelihoods_offer_what_they_claim(kind: str) -> None:
    """One that claims to be normalised has 256 probabilities that sum to 1; one that does not, has not."""
    likelihood = registered("likelihood")[kind](channels=1)
    likelihood.eval()
    output = torch.full((1, 256, likelihood.outputs, 1, 1), 0.3)
    total = likelihood(output).log_prob((torch.arange(256) / 255).reshape(256, 1, 1, 1)).exp().sum().item()
    assert (abs(total - 1) < 1e-3) == ("normalised" in getattr(likelihood, "offers", ()))


def test_a_model_is_drawn_from_its_seed_alone() -> None:
    torch.manual_seed(1)
    one, _ = build(small(), (1, 8, 8))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two, _ = build(small(), (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    other, _ = build(small(seed=1), (1, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_images_outside_the_support_are_refused_in_one_sentence() -> None:
    model, _ = build(small(), (1, 8, 8))
    model.require_support(torch.rand(2, 1, 8, 8))
    with pytest.raises(UserError, match=r"from -1 to 1 .*'bernoulli'.*\[0, 1\]"):
        model.require_support(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8))


def test_a_conditional_model_without_classes_is_refused() -> None:
    with pytest.raises(UserError, match="--conditional needs classes"):
        build(small(conditional=True), (1, 8, 8), classes=0)


def test_labels_change_what_a_conditional_model_says() -> None:
    model, _ = build(small(conditional=True), (1, 8, 8), 3)
    x = images((1, 8, 8), 2)
    first, second = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    assert not torch.equal(model.encode(x, first).mean, model.encode(x, second).mean)
    z = torch.zeros(1, 2, 3)
    assert not torch.equal(model.decode(z, first).mean, model.decode(z, second).mean)


def test_labels_follow_their_images_through_several_samples() -> None:
    model, _ = build(small(conditional=True), (1, 8, 8), 3)
    model.eval()
    z, y = torch.randn(4, 5, 3), torch.tensor([0, 1, 2, 0, 1])
    together = model.decode(z, y).mean
    for s in range(4):
        for b in range(5):
            alone = model.decode(z[s, b][None], y[b][None]).mean[0]
            torch.testing.assert_close(together[s, b], alone, rtol=1e-4, atol=1e-5)


def test_mixed_precision_keeps_posterior_and_likelihood_in_float32() -> None:
    model, objective = build(small(), (1, 16, 16))
    model.precision = torch.bfloat16
    x = images((1, 16, 16))
    terms = model.terms(x)
    assert {t.dtype for t in (terms.log_px, terms.groups[0].z, terms.groups[0].kl)} == {torch.float32}
    mixed, _ = objective(terms)
    model.precision = torch.float32
    full, _ = objective(model.terms(x))
    assert mixed.item() == pytest.approx(full.item(), rel=0.01)


@pytest.mark.parametrize("levels", ["256", "none"])
@pytest.mark.parametrize("dark", [False, True], ids=["noise", "mostly black"])
def test_optimal_sigma_maximises_the_likelihood_and_is_frozen_for_use(dark: bool, levels: str) -> None:
    likelihood = registered("likelihood")["gaussian"](channels=1, sigma="optimal", levels=levels)
    x = images((1, 8, 8), 64)
    if dark:
        x = x * (torch.rand_like(x) < 0.2)
    output = torch.full((1, 64, 1, 8, 8), -2.0)
    for _ in range(5000):
        likelihood(output, x)
    likelihood.eval()
    found = likelihood.log_sigma.clone()
    scores = []
    for shift in (-0.05, 0.0, 0.05):
        likelihood.log_sigma.copy_(found + shift)
        scores.append(likelihood(output).log_prob(x).mean().item())
    assert scores[1] > max(scores[0], scores[2])
    likelihood.log_sigma.copy_(found)
    likelihood(output, x / 2)
    assert torch.equal(likelihood.log_sigma, found)


def test_a_learned_sigma_finds_back_from_below_its_floor() -> None:
    likelihood = registered("likelihood")["gaussian"](channels=1, scale=1e-5)
    likelihood(torch.zeros(1, 1, 1, 1, 1)).log_prob(torch.zeros(1, 1, 1, 1)).sum().backward()
    assert likelihood.log_sigma.grad.item() > 0


def test_the_posteriors_log_variance_is_bounded_and_untouched_near_zero() -> None:
    posterior = registered("posterior")["gaussian"](features=1, latents=1)
    with torch.no_grad():
        posterior.head.weight.copy_(torch.tensor([[0.0], [1.0]]))
        posterior.head.bias.zero_()
        small, huge = posterior(torch.tensor([[0.1], [1e6]])).log_variance.flatten()
    assert small.item() == pytest.approx(0.1, rel=1e-3)
    assert huge.item() == pytest.approx(15.0)


def test_a_posterior_that_yields_its_density_with_the_draw_is_not_asked_again() -> None:
    from vaekit.parts.distributions import DiagonalGaussian, StandardNormal
    from vaekit.parts.paths import flat

    class OneWay(DiagonalGaussian):
        def rsample_and_log_prob(self, shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
            z = self.rsample(shape)
            return z, super().log_prob(z)

        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            raise AssertionError("inverting is what must not happen")

    q = OneWay(torch.ones(4, 2), torch.zeros(4, 2))
    terms = flat(
        lambda x, y: q, lambda encode, y: StandardNormal(2), lambda z: z.sum(-1), images((1, 2, 2), 4), None, 3
    )
    group = terms.groups[0]
    assert group.log_q.shape == group.kl.shape == (3, 4)
    torch.testing.assert_close(group.kl, group.log_q - group.log_p)
