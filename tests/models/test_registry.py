"""Tests of every registered component; new ones are covered automatically."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest import MonkeyPatch
from torch import nn
from torch.distributions import constraints

import vaekit
import vaekit.models.builder
from command import MLP, refused, rings, user_error
from vaekit.config.config import Config, settings_classes
from vaekit.config.latents import GaussianPosteriorConfig
from vaekit.config.likelihoods import GaussianLikelihoodConfig
from vaekit.config.overrides import resolve
from vaekit.errors import UserError
from vaekit.models.builder import build
from vaekit.models.distributions.latents import DiagonalGaussian
from vaekit.models.likelihoods import Bernoulli
from vaekit.models.registry import BuildContext, Capability, components, make_component
from vaekit.models.single_level import rsample_with_log_prob
from vaekit.models.summary import summary
from vaekit.models.terms import Group, Objective
from vaekit.models.vae import VAE
from vaekit.runs.checkpoint import load_weights, write_weights

SLOTS = ("encoder", "decoder", "posterior", "prior", "likelihood", "objective")
ILLEGAL = {
    ("posterior", "full_gaussian"): {"total_correlation"},
    ("posterior", "iaf"): {"dreg", "total_correlation", "dip"},
    ("posterior", "nsf"): {"dreg", "total_correlation", "dip"},
    ("posterior", "delta"): {"elbo", "iwae", "dreg", "miwae", "total_correlation", "dip"},
    ("prior", "mixture"): {"mmd", "total_correlation", "dip", "l2"},
    ("prior", "vamp"): {"mmd", "total_correlation", "dip", "l2"},
    ("prior", "flow"): {"total_correlation", "dip", "l2"},
    ("prior", "class"): {"total_correlation", "dip", "l2"},
}
"""Objectives that are incompatible with a component: importance weights need a density, total correlation
independent latents, MMD a prior with reparameterized samples, L2 and DIP a standard normal prior."""
EVERY = [(slot, kind) for slot in SLOTS for kind in components(slot)]


def small(**layers: Any) -> Config:
    return resolve({"latents": 3, **layers})


def needs_labels(slot: str, kind: str) -> bool:
    return slot != "objective" and Capability.LABELS in components(slot)[kind].requires.get("model", ())


def settings_to_train_all(slot: str, kind: str) -> dict[str, Any]:
    """Further settings with which all parameters of a component are trained."""
    if slot == "posterior" and Capability.DENSITY_AT_SAMPLE not in components(slot)[kind].provides:
        return {"objective": "l2"}
    if slot == "objective":
        requires = make_component(slot, settings_classes(slot)[kind]()).requires
        if Capability.DENSITY_AT_SAMPLE not in requires.get("posterior", ()):
            return {"posterior": "delta"}
    return {}


def suggestions(caught: str) -> list[tuple[str, str]]:
    """The (slot, kind) pairs that an incompatibility message suggests."""
    lists = re.findall(r"(\w+)=\{'kind': '(\w+)'\}((?:, (?!or )\w+\b(?!=))*(?: or \w+\b(?!=))?)", caught)
    pairs = [(slot, [first, *re.findall(r"(?:, | or )(\w+)", others)]) for slot, first, others in lists]
    return [(slot, kind) for slot, kinds in pairs for kind in kinds]


class Pixels(nn.Module):
    """A custom encoder, or decoder of latents [N, 3]: one linear map, labels added if given."""

    def __init__(self, inputs: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.shape = nn.Linear(inputs, math.prod(shape)), shape

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        h: torch.Tensor = self.layer(x.flatten(1) if y is None else x.flatten(1) + y[:, None])
        return h.unflatten(1, self.shape)


def build_model(config: Config, shape: tuple[int, int, int], classes: int = 0) -> tuple[VAE, Objective]:
    """`build`, with custom modules where the configuration has kind `own`."""
    custom = {"encoder": Pixels(math.prod(shape), (8,)), "decoder": Pixels(3, shape)}
    networks = {slot: module for slot, module in custom.items() if getattr(config, slot).kind == "own"}
    return build(config, shape, classes, images=16, networks=networks)


def images(shape: tuple[int, int, int], count: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape)) / 255


@pytest.mark.parametrize("slot", SLOTS)
def test_every_kind_has_settings_with_help(slot: str) -> None:
    assert set(settings_classes(slot)) == set(components(slot))
    for kind, settings in settings_classes(slot).items():
        for name, field in settings.model_fields.items():
            assert name == "kind" or field.description, f"{kind}.{name} needs help"


@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "conditional"])
@pytest.mark.parametrize(("slot", "kind"), EVERY)
def test_every_parameter_gets_a_gradient(slot: str, kind: str, conditional: bool) -> None:
    labels = conditional or needs_labels(slot, kind)
    config = small(**{slot: kind}, **settings_to_train_all(slot, kind), conditional=labels)
    model, objective = build_model(config, (1, 8, 8), 3)
    x, y = images((1, 8, 8)), torch.arange(6) % 3 if config.conditional else None
    loss, _ = objective(model.terms(x, y, objective.samples))
    loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


NETWORKS = ("encoder", "decoder")
PAIRS = [(*pair, "elbo") for pair in EVERY if pair[0] in NETWORKS]  # an objective never sees a network
LATENT_SLOTS = ("posterior", "prior", "likelihood")
PAIRS += [(*pair, loss) for pair in EVERY if pair[0] in LATENT_SLOTS for loss in components("objective")]


@pytest.mark.parametrize(("slot", "kind", "objective"), PAIRS)
def test_components_train_and_reload(slot: str, kind: str, objective: str, tmp_path: Path) -> None:
    """A compatible pair learns and reloads; for another the message names both and what would work."""
    layers = {"encoder": "mlp", slot: kind, "objective": objective, "conditional": needs_labels(slot, kind)}
    config = small(**layers)
    if objective in ILLEGAL.get((slot, kind), set()):
        with user_error() as caught:
            build_model(config, (1, 6, 6), 2)
        text = str(caught.value)
        assert f"{kind!r}" in text and f"{objective!r}" in text and "\n" not in text
        choices = suggestions(text)
        assert {where for where, _ in choices} == {slot, "objective"}
        for where, other in choices:  # with all else as it was
            build_model(small(**layers | {where: other}), (1, 6, 6), 2)
        return
    model, objective_fn = build_model(config, (1, 6, 6), 2)
    x, y = (torch.rand(16, 1, 6, 6) > 0.5).float(), torch.arange(16) % 2 if config.conditional else None
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for _ in range(40):
        loss, _ = objective_fn(model.terms(x, y, objective_fn.samples))
        optimizer.zero_grad()
        loss.backward()
        assert losses or [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
        optimizer.step()
        losses.append(loss.item())
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    assert last < first - 0.05 * abs(first)

    write_weights(tmp_path / "model.safetensors", model.state_dict())
    twin, _ = build_model(config, (1, 6, 6), 2)
    load_weights(twin, tmp_path / "model.safetensors")
    results = []
    for one in (model.eval(), twin.eval()):
        torch.manual_seed(5)
        with torch.no_grad():
            results.append((objective_fn(one.terms(x, y, objective_fn.samples))[0], one.reconstruct(x, y)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize("prior", list(components("prior")))
@pytest.mark.parametrize("posterior", list(components("posterior")))
def test_every_posterior_with_every_prior(posterior: str, prior: str) -> None:
    """Pseudo-inputs need a density anywhere, the ELBO one at samples; suggested kinds work."""
    conditional = needs_labels("prior", prior)
    layers = {"encoder": "mlp", "posterior": posterior, "prior": prior, "conditional": conditional}
    provides = components("posterior")[posterior].provides
    required = components("prior")[prior].requires.get("posterior", frozenset())
    if provides >= required | {Capability.DENSITY_AT_SAMPLE}:
        model, objective = build_model(small(**layers), (1, 6, 6), 2)
        y = torch.arange(6) % 2 if model.classes else None
        assert objective(model.terms(images((1, 6, 6)), y))[0].isfinite()
        return
    who = prior if Capability.DENSITY_AT_SAMPLE in provides else "elbo"
    with user_error(f"'{who}'.*'{posterior}'") as caught:
        build_model(small(**layers), (1, 6, 6), 2)
    choices = suggestions(str(caught.value))
    assert choices
    for where, other in choices:
        build_model(small(**layers | {where: other}), (1, 6, 6), 2)


def test_suggestions_are_parsed() -> None:
    text = "Use conditional=True, or prior={'kind': 'b'}, c_d or e, or objective={'kind': 'f'} or g."
    expected = [("prior", "b"), ("prior", "c_d"), ("prior", "e"), ("objective", "f"), ("objective", "g")]
    assert suggestions(text) == expected


@pytest.mark.parametrize("objective", ["mmd", {"free_bits": 0.1}, "total_correlation", "iwae"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("prior", ["class", "mixture"])
def test_following_suggestions_ends_in_a_valid_model(prior: str, classes: int, objective: Any) -> None:
    layers = {"encoder": "mlp", "prior": prior, "objective": objective}
    for _ in range(2):
        try:
            build_model(small(**layers), (1, 6, 6), classes)
            return
        except UserError as caught:
            text = str(caught)
            assert ("conditional=True" in text) <= (classes > 0)
            slot, kind = [choice for choice in suggestions(text) if choice[0] == "prior"][-1]
            layers[slot] = kind
    pytest.fail(f"still rejected with {layers}")


@pytest.mark.parametrize("objective", ["iwae", "dreg", "miwae"])
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_optimal_sigma_is_rejected_by_importance_weighted_objectives(kind: str, objective: str) -> None:
    optimal = {"kind": kind, "sigma": "optimal"}
    build_model(small(likelihood=optimal), (1, 6, 6))
    message = rf"'{objective}'.*'{kind}' with .*optimal.*, or omit likelihood={{'sigma': 'optimal'}}\."
    refused(message, build_model, small(likelihood=optimal, objective=objective), (1, 6, 6))


def test_incompatibility_message_names_only_the_conflicting_setting() -> None:
    likelihood = {"kind": "gaussian", "sigma": "optimal", "scale": 0.3}
    with user_error() as caught:
        build_model(small(likelihood=likelihood, objective="iwae"), (1, 6, 6))
    assert "'gaussian' with likelihood={'sigma': 'optimal'} does not provide" in str(caught.value)
    assert "scale" not in str(caught.value)


FREE_BITS = ({"free_bits": 0.1, "warmup": 3}, "iaf", "{'free_bits': 0.1}")
MMD = ({"kind": "mmd", "beta": 2, "weight": 3}, "delta", "{'beta': 2.0}")


@pytest.mark.parametrize(("objective", "posterior", "text"), [FREE_BITS, MMD])
def test_incompatibility_message_names_the_setting(objective: Any, posterior: str, text: str) -> None:
    with user_error() as caught:
        build_model(small(objective=objective, posterior=posterior), (1, 6, 6))
    assert f"with objective={text} needs" in str(caught.value)
    assert str(caught.value).endswith(f", or omit objective={text}.")
    assert "warmup" not in str(caught.value) and "weight" not in str(caught.value)


@pytest.mark.parametrize("objective", ["mmd", "total_correlation", "dip"])
def test_batch_objectives_reject_a_single_image(objective: str) -> None:
    with user_error(rf"'{objective}' needs more than one image per step\. Use batch_size=2 or more, or"):
        build_model(small(objective=objective, batch_size=1), (1, 6, 6))
    with user_error(rf"'{objective}' needs more than one image per step\. Use objective="):
        build(small(objective=objective), (1, 6, 6), images=1)
    build_model(small(objective=objective, batch_size=2), (1, 6, 6))


def test_impossible_models_are_rejected() -> None:
    with user_error(r"the images have no classes. .*conditional"):
        build(small(conditional=True), (1, 8, 8), classes=0)
    with user_error(r"The encoder of this model is 'mlp', not a custom module\. Omit `encoder`\."):
        build(small(encoder="mlp"), (1, 6, 6), networks={"encoder": torch.nn.Flatten()})
    with user_error(r"'full_gaussian' of 4,096 latents .* posterior={'kind': 'gaussian'}"):
        convolution = {"kind": "conv", "channels": 8}
        build_model(small(posterior="full_gaussian", latents="4x32x32", encoder=convolution), (1, 32, 32))


@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "conditional"])
@pytest.mark.parametrize("network", [k for k in components("encoder") if k in ("conv", "resnet")])
@pytest.mark.parametrize("posterior", list(components("posterior")))
def test_latent_images_go_with_every_posterior(posterior: str, network: str, conditional: bool) -> None:
    networks = {"encoder": network, "decoder": network, "conditional": conditional}
    layers = {"latents": "3x4x4", "posterior": posterior, **settings_to_train_all("posterior", posterior)}
    config = small(**networks, **layers)
    model, objective_fn = build_model(config, (1, 8, 8), 2)
    x, y = images((1, 8, 8), 5), torch.zeros(5, dtype=torch.long) if conditional else None
    for _ in range(3):
        loss, _ = objective_fn(model.terms(x, y))
    loss.backward()
    assert model.latents == 48
    assert model.encode(x, y).mean.shape == (5, 48)
    assert model.reconstruct(x, y).shape == x.shape


@pytest.mark.parametrize("kind", list(components("likelihood")))
def test_likelihoods_provide_what_they_claim(kind: str) -> None:
    """The probabilities of the 256 levels sum to 1 if and only if the likelihood provides NORMALIZED."""
    likelihood = make_component("likelihood", settings_classes("likelihood")[kind]()).eval()
    output = torch.full((1, 256, likelihood.outputs, 1, 1), 0.3)
    total = likelihood(output).log_prob((torch.arange(256) / 255).reshape(256, 1, 1, 1)).exp().sum().item()
    assert likelihood.likelihood_kind in ("probability", "density")
    assert (abs(total - 1) < 1e-3) == (Capability.NORMALIZED in likelihood.provides)


@pytest.mark.parametrize("training", [True, False])
def test_encoder_and_likelihood_see_the_same_binarized_pixels(training: bool) -> None:
    model, _ = build(small(likelihood="binarized", encoder="mlp"), (1, 8, 8))
    model.train(training)
    read: list[torch.Tensor] = []
    scored: list[Any] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    model.likelihood.register_forward_hook(lambda _, __, px: scored.append(px))
    x = images((1, 8, 8))
    for _ in range(2):
        terms = model.terms(x)
        torch.testing.assert_close(terms.log_px, scored[-1].log_prob(read[-1]))
        assert set(read[-1].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(read[0], read[1]) != training


def test_weights_depend_on_the_seed_only() -> None:
    torch.manual_seed(1)
    one, _ = build(small(), (1, 8, 8))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two, _ = build(small(), (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    other, _ = build(small(seed=1), (1, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_images_outside_the_support_are_rejected() -> None:
    model, _ = build(small(), (1, 8, 8))
    model.require_support(torch.rand(2, 1, 8, 8))
    with user_error(r"from -1 to 1 .*Bernoulli\. Pass images as uint8, or as numbers"):
        model.require_support(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8))
    levels, _ = build(small(likelihood="gaussian"), (1, 8, 8))
    levels.require_support(torch.arange(64).reshape(1, 1, 8, 8) / 255)
    with user_error(r"outside the support .*Gaussian\. .* multiples of 1/255"):
        levels.require_support(torch.full((1, 1, 8, 8), 0.3 / 255))


def test_training_rejects_images_outside_the_support(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(Bernoulli, "support", constraints.greater_than(1.0))
    refused(
        "are outside the support", vaekit.train, rings(40, 12), out=tmp_path / "run", preset="classic", **MLP
    )


@pytest.mark.parametrize("prior", list(components("prior")))
def test_summary_adds_up(prior: str) -> None:
    config = small(prior=prior, latents=1, conditional=needs_labels("prior", prior))
    model, _ = build_model(config, (1, 6, 6), 2)
    *counts, total = [int(row.split()[-1].replace(",", "")) for row in summary(model).splitlines()[1:]]
    assert sum(counts) == total == sum(weight.numel() for weight in model.parameters())


def test_labels_are_those_of_their_images() -> None:
    model, _ = build(small(conditional=True), (1, 8, 8), 3)
    x = images((1, 8, 8), 2)
    first, second = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    assert not torch.equal(model.encode(x, first).mean, model.encode(x, second).mean)
    z = torch.zeros(1, 2, 3)
    assert not torch.equal(model.decode(z, first).mean, model.decode(z, second).mean)
    model.eval()
    z, y = torch.randn(4, 5, 3), torch.tensor([0, 1, 2, 0, 1])
    together = model.decode(z, y).mean
    for s in range(4):
        for b in range(5):
            alone = model.decode(z[s, b][None], y[b][None]).mean[0]
            torch.testing.assert_close(together[s, b], alone, rtol=1e-4, atol=1e-5)


def test_scales_are_bounded() -> None:
    likelihood = make_component("likelihood", GaussianLikelihoodConfig())
    likelihood.log_sigma.data.fill_(math.log(1e-5))
    likelihood(torch.zeros(1, 1, 1, 1, 1)).log_prob(torch.zeros(1, 1, 1, 1)).sum().backward()
    assert likelihood.log_sigma.grad.item() > 0
    posterior = make_component("posterior", GaussianPosteriorConfig(), BuildContext(features=(1,)))
    with torch.no_grad():
        posterior.head.weight.copy_(torch.tensor([[0.0], [1.0]]))
        posterior.head.bias.zero_()
        small, huge, tiny = posterior(torch.tensor([[0.1], [1e6], [-1e6]])).log_variance.flatten()
    assert small.item() == pytest.approx(0.1, rel=1e-3)
    assert huge.item() == pytest.approx(2 * math.log(10)) and tiny.item() == pytest.approx(-15.0)


def test_density_returned_with_sample_is_not_recomputed() -> None:
    class OneWay(DiagonalGaussian):
        def rsample_and_log_prob(self, shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
            z = self.rsample(shape)
            return z, super().log_prob(z)

        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            raise AssertionError("must not be inverted")

    q = OneWay(torch.ones(4, 2), torch.zeros(4, 2))
    z, log_q = rsample_with_log_prob(q, 3)
    group = Group(z, q, DiagonalGaussian(torch.zeros(2), torch.zeros(2)), log_q)
    assert group.log_q.shape == group.kl.shape == (3, 4)
    torch.testing.assert_close(group.kl, group.log_q - group.log_p)


def test_one_hot_conditions_are_classes() -> None:
    """A vector with a 1 at the number of a class adds what the class does, in networks and in the prior."""
    config = small(conditional=True, prior="class")
    by_class, _ = build(config, (1, 8, 8), 3)
    by_vector, _ = build(small(prior="class", condition="a", labels="t.csv"), (1, 8, 8), conditions=3)
    by_vector.load_state_dict({**by_class.state_dict(), "condition_rows": by_vector.condition_rows})
    y, z = torch.tensor([0, 2, 1, 2]), torch.randn(4, by_class.latents)
    vectors = torch.nn.functional.one_hot(y, 3).float()
    x = torch.rand(4, 1, 8, 8)
    for one, other in (
        (by_class.image(z, y), by_vector.image(z, vectors)),
        (by_class.posterior_of(x, y).mean, by_vector.posterior_of(x, vectors).mean),
        (by_class.log_prior(z, y), by_vector.log_prior(z, vectors)),
        (by_class.decode(z[None], y).log_prob(x), by_vector.decode(z[None], vectors).log_prob(x)),
    ):
        assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(by_vector.image(z, vectors), by_vector.image(z, 1 - vectors))


def test_custom_modules_and_pseudo_inputs_have_conditions() -> None:
    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64 + 2, 5)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.cat([x.flatten(1), y], 1))

    layers = {"prior": {"kind": "vamp", "components": 4}, "condition": "a,b", "labels": "t.csv"}
    config = small(encoder={"kind": "own", "name": "Encoder"}, **layers)
    model, _ = build(config, (1, 8, 8), networks={"encoder": Encoder()}, conditions=2)
    model.prior.init_from_data(torch.rand(4, 1, 8, 8), torch.randn(4, 2))
    y = torch.randn(3, 2)
    assert model.log_prior(model.sample_prior(3, y), y).isfinite().all()
    with user_error(r"Add an argument y for the conditions, numbers \[B, 2\]"):
        build(config, (1, 8, 8), networks={"encoder": torch.nn.Flatten()}, conditions=2)
