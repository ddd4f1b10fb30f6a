"""The prior fitted to the latents: a density, better than the model's where that can be, and used."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytest import MonkeyPatch
from safetensors import safe_open
from torch import Tensor

import vaekit
from command import mistake, refused, rings
from command import vaekit as command
from vaekit.config.overrides import resolve
from vaekit.latents import densities
from vaekit.latents.densities import Encodings
from vaekit.latents.fit_prior import MIN_VALIDATION_ENCODINGS, PriorFit, choose_prior, encodings
from vaekit.latents.sampling import draw_latents
from vaekit.models.builder import build
from vaekit.models.distributions.latents import tempered
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.vae import VAE
from vaekit.training.artifacts import SamplingPrior

SMALL = {"kind": "mlp", "hidden": "32"}
TINY: dict[str, Any] = {"epochs": 3, "encoder": SMALL, "decoder": SMALL, "latents": 2, "quiet": True}
TINY |= {"threads": 1, "report": False, "callbacks": [SamplingPrior()]}


def model_of(latents: int, classes: int = 0) -> VAE:
    config = resolve({"latents": latents, "conditional": classes > 0, "encoder": "mlp", "decoder": "mlp"})
    return build(config, (1, 4, 4), classes)[0].eval()


def two_heaps(n: int, classes: int, seed: int) -> Encodings:
    """Narrow heaps at (3, 0) and (-3, 0), a class each where there are classes."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    z = 0.2 * torch.randn(n, 2, generator=random) + torch.stack([3.0 - 6.0 * y, torch.zeros(n)], 1)
    return Encodings(z, y if classes else torch.zeros_like(y))


def fitted(full: bool | None, classes: int, seed: int = 0) -> FittedPrior:
    """A prior of two latents with parameters that no fit has made tame; `full` is None for the flow."""
    torch.manual_seed(seed)
    settings = {} if full is None else {"components": 3, "full": full}
    kind = "splines" if full is None else "gaussians"
    prior = FittedPrior({"kind": kind, "latents": 2, "classes": classes, "settings": settings})
    prior.shares.copy_(torch.rand(classes)).div_(prior.shares.sum())
    with torch.no_grad():
        if full is None:
            for weight in prior.parameters():
                weight.mul_(3)
            prior.density.loc.copy_(torch.tensor([1.0, -2.0]))
            prior.density.scale.copy_(torch.tensor([0.5, 2.0]))
        else:
            prior.density.logits.copy_(torch.randn(classes, 3))
            prior.density.loc.copy_(2 * torch.randn(classes, 3, 2))
            scale = prior.density.scale
            if full:
                scale.add_(torch.rand_like(scale)).tril_()
            else:
                scale.mul_(0.5 + torch.rand(classes, 3, 2))
    return prior.eval().requires_grad_(False)


def plane() -> tuple[Tensor, float]:
    line = torch.linspace(-16, 16, 401)
    return torch.cartesian_prod(line, line), (line[1] - line[0]).item() ** 2


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("full", [True, False, None])
def test_densities_integrate_to_one_and_samples_match_them(full: bool | None, classes: int) -> None:
    prior = fitted(full, classes)
    points, volume = plane()
    total = prior.log_prior(points).exp()
    assert total.sum() * volume == pytest.approx(1, abs=3e-3)
    labels = [torch.full((len(points),), y) for y in range(classes)]
    by_class = torch.stack([prior(y).log_prob(points).exp() for y in labels])
    torch.testing.assert_close(by_class.sum(1) * volume, torch.ones(classes), atol=3e-3, rtol=0)
    torch.testing.assert_close(prior.shares @ by_class, total)
    y = torch.arange(60_000) % classes
    z = prior(y).sample()
    for label in range(classes):
        drawn, inside = z[y == label], by_class[label] * volume
        for power in (lambda t: t, torch.square, lambda t: t.prod(-1, keepdim=True)):
            values = power(drawn)
            error = values.std(0) / math.sqrt(len(values))
            assert ((values.mean(0) - inside @ power(points)).abs() < 5 * error + 2e-3).all()


def test_rows_get_the_density_of_their_class() -> None:
    prior = fitted(True, 3)
    z, y = torch.randn(2, 9, 2), torch.arange(9) % 3
    each = torch.stack([prior(torch.full((9,), label)).log_prob(z) for label in range(3)])
    torch.testing.assert_close(prior(y).log_prob(z), each.gather(0, y.expand(1, 2, 9)).squeeze(0))


@pytest.mark.parametrize("full", [True, False, None])
def test_at_temperature_0_draws_are_centres(full: bool | None) -> None:
    prior = fitted(full, 2)
    drawn = tempered(prior(torch.tensor([1] * 50)), 0.0).sample()
    centres = prior.density.loc[1] if full is not None else drawn[:1]
    assert torch.cdist(drawn, centres, compute_mode="donot_use_mm_for_euclid_dist").min(1).values.max() < 1e-4


@pytest.mark.parametrize(("classes", "conditional"), [(0, False), (2, False), (2, True)])
def test_heaps_unknown_to_the_prior(classes: int, conditional: bool, monkeypatch: MonkeyPatch) -> None:
    """The best density possible is the true one, whose mean log-density is minus its entropy."""
    monkeypatch.setattr(densities, "FLOW_STEPS", 50)
    train, held_out = two_heaps(2000, classes, 1), two_heaps(1000, classes, 2)
    fit = choose_prior(model_of(2, 2 if conditional else 0), train, held_out, classes, seed=0)
    entropy = math.log(2 * math.pi * math.e * 0.2**2) + (0 if conditional else math.log(2))
    assert fit.prior is not None
    assert fit.candidates[fit.prior.name] == pytest.approx(-entropy, abs=0.05)
    standard = (-0.5 * held_out.z.square().sum(1) - math.log(2 * math.pi)).mean().item()
    assert fit.model_prior == pytest.approx(standard, rel=1e-5)
    assert fit.gain == pytest.approx(fit.candidates[fit.prior.name] - standard, rel=1e-5)
    if classes:
        z = fit.prior(torch.ones(500, dtype=torch.long)).sample()
        assert z[:, 0].max() < 0


def test_small_classes_share_the_covariance() -> None:
    many = two_heaps(2000, 2, 1)
    few = Encodings(torch.cat([many.z, torch.tensor([[0.0, 5.0]])]), torch.cat([many.y, torch.tensor([2])]))
    fit = choose_prior(model_of(2), few, two_heaps(1000, 2, 2), 3, seed=0)
    assert fit.prior is not None
    z = fit.prior(torch.full((4000,), 2)).sample()
    torch.testing.assert_close(z.mean(0), torch.tensor([0.0, 5.0]), atol=0.05, rtol=0)
    width = 0.2 * 2**0.5  # of one image: its own and that of the place it gives, as wide again
    torch.testing.assert_close(z.std(0), torch.full((2,), width), atol=0.03, rtol=0)
    places = 5 * torch.randn(100, 1, 2)
    y = torch.arange(100).repeat_interleave(2)
    drawn = [(places + torch.randn(100, 2, 2)).flatten(0, 1) for _ in range(2)]
    fit = choose_prior(model_of(2), Encodings(drawn[0], y), Encodings(drawn[1], y), 100, seed=0)
    assert fit.prior is not None
    density: Any = fit.prior.density
    variance = density.scale[:, 0].square().sum(-1 if not density.full else (1, 2)).mean() / 2
    assert variance.item() == pytest.approx(1.5, rel=0.2)


def test_no_prior_is_fitted_without_need_or_evidence(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(densities, "FLOW_STEPS", 50)
    train, held_out = (Encodings(torch.randn(n, 2), torch.zeros(n, dtype=torch.long)) for n in (3000, 3000))
    fit = choose_prior(model_of(2), train, held_out, 0, seed=0)
    assert fit.prior is None and "no fitted prior was better" in fit.sentence
    held_out = two_heaps(MIN_VALIDATION_ENCODINGS - 1, 0, 2)
    fit = choose_prior(model_of(2), two_heaps(500, 0, 1), held_out, 0, seed=0)
    assert fit.prior is None and "too few validation images" in fit.sentence


def test_constant_latents_do_no_harm(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(densities, "FLOW_STEPS", 20)
    train, held_out = with_constant_latents(two_heaps(200, 0, 1)), with_constant_latents(two_heaps(100, 0, 2))
    fit = choose_prior(model_of(702), train, held_out, 0, seed=0)
    assert fit.prior is not None and math.isfinite(fit.gain)
    assert not [name for name in fit.candidates if "full" in name or "spline" in name]
    assert fit.prior(torch.zeros(5, dtype=torch.long)).sample().isfinite().all()


@pytest.mark.parametrize("size", [math.inf, 1e30])
def test_latents_beyond_all_measure_do_not_stop_a_training(size: float, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(densities, "FLOW_STEPS", 10)
    train, held_out = two_heaps(300, 0, 1), two_heaps(100, 0, 2)
    train.z[0, 0] = size
    fit = choose_prior(model_of(2), train, held_out, 0, seed=0)
    assert fit.sentence
    assert fit.prior is None or fit.prior(torch.zeros(5, dtype=torch.long)).sample().isfinite().all()


def with_constant_latents(latents: Encodings) -> Encodings:
    return Encodings(torch.cat([latents.z, torch.zeros(len(latents.z), 700)], 1), latents.y)


def same(a: PriorFit, b: PriorFit) -> bool:
    assert a.prior is not None and b.prior is not None
    one, other = a.prior.state_dict(), b.prior.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_fits_the_same_prior(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(densities, "FLOW_STEPS", 20)
    before = torch.random.get_rng_state()
    train, held_out = two_heaps(600, 2, 1), two_heaps(100, 2, 2)
    first, second = (choose_prior(model_of(2), train, held_out, 2, seed=7) for _ in range(2))
    assert same(first, second)
    assert torch.equal(before, torch.random.get_rng_state())


def test_splits_are_encoded_with_different_noise() -> None:
    """Else unused latents, which are noise alone, would seem to be fitted."""
    model = model_of(30)
    images = torch.rand(64, 1, 4, 4)
    train, held_out = (encodings(model, [(images, None)], split, 0).z for split in ("train", "validation"))
    noise = torch.stack([train, held_out]) - model.encode(images).mean
    assert torch.corrcoef(noise.flatten(1))[0, 1].abs() < 0.1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark rings: latents far from normal, in two classes unknown to the model."""
    folder = tmp_path_factory.mktemp("runs") / "rings"
    images = rings(400, 8)
    labels = np.arange(400) % 2
    images[labels == 1] = 255 - images[labels == 1]
    np.savez(folder.parent / "rings.npz", images=images, labels=labels)
    vaekit.train(folder.parent / "rings.npz", preset="ae", out=folder, **TINY | {"epochs": 30})
    return folder


def test_training_fits_a_prior_that_generate_uses(run: Path, tmp_path: Path) -> None:
    output = (run / "log.txt").read_text()
    assert "Sampling prior: " in output and "better than the model's own" in output
    with safe_open(run / "latent_prior.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["about"])
    assert metadata["name"] in metadata["nats_per_held_out_image"]
    assert metadata["gain"] > 2 * metadata["gain_standard_error"]
    assert metadata["encodings"] + metadata["held_out"] == 400
    assert {"the model's own prior"} < set(metadata["nats_per_held_out_image"])
    output = command("generate", run, "-n", 4, "--out", tmp_path / "fitted")
    assert "Sampled from the fitted prior" in output
    output = command("generate", run, "-n", 4, "--prior", "model", "--out", tmp_path / "own")
    assert "Sampled from the model's own prior" in output
    model = vaekit.load(run)
    assert model.fitted_prior is not None
    density = model.fitted_prior.log_prior(draw_latents(model.fitted_prior, 4, 0))  # of all classes together
    written = pd.read_csv(tmp_path / "fitted" / "metadata.csv")
    assert [*written.columns] == ["file_name", "seed", "log_density"]
    np.testing.assert_allclose(written["log_density"], density, atol=1e-3)
    assert not np.array_equal(model.sample(4), model.sample(4, prior="model"))
    np.testing.assert_array_equal(model.sample(4), model.sample(4, prior="fitted"))
    np.testing.assert_array_equal(model.sample(100, seed=5)[:7], model.sample(7, seed=5))


def test_it_draws_a_class_from_a_model_trained_without_labels(run: Path, tmp_path: Path) -> None:
    model = vaekit.load(run)
    light, dark = (model.sample(60, label=label, seed=1).mean((1, 2, 3)) for label in ("1", "0"))
    assert (light > 128).mean() > 0.95 and (dark < 128).mean() > 0.95
    everything = model.sample(200).mean((1, 2, 3))
    assert 0.35 < (everything > 128).mean() < 0.65
    command("generate", run, "-n", 3, "--class", "1", "--out", tmp_path / "one")
    assert len(list((tmp_path / "one").glob("*-1.png"))) == 3
    assert set(pd.read_csv(tmp_path / "one" / "metadata.csv")["label"]) == {1}
    assert "Unknown class '7'" in mistake("generate", run, "--class", "7")
    assert "has no classes" in mistake("generate", run, "--class", "1", "--prior", "model")


def test_fitted_anew_it_is_the_same(run: Path) -> None:
    before = vaekit.load(run).fitted_prior
    assert "the model's own prior" in command("fit-prior", run)
    after = vaekit.load(run).fitted_prior
    assert before is not None and after is not None and before.name == after.name
    torch.testing.assert_close(after.state_dict(), before.state_dict(), atol=1e-3, rtol=1e-3)


def test_saved_with_the_model_and_not_used_for_other_weights(run: Path, tmp_path: Path) -> None:
    vaekit.load(run).save(tmp_path / "copy")
    model = vaekit.load(tmp_path / "copy")
    assert model.fitted_prior is not None
    np.testing.assert_array_equal(model.sample(3), vaekit.load(run).sample(3))
    other = vaekit.train(rings(60, 8), preset="ae", out=tmp_path / "other", **TINY)
    (tmp_path / "copy" / "model.safetensors").write_bytes((other.run.weights).read_bytes())
    assert vaekit.load(tmp_path / "copy").fitted_prior is None
    refused("has no fitted prior", vaekit.load(tmp_path / "copy").sample, 1, prior="fitted")


@pytest.mark.parametrize("content", [b"", b"nonsense" * 40, "half"])
def test_a_damaged_file_is_named_with_the_remedy(run: Path, tmp_path: Path, content: Any) -> None:
    vaekit.load(run).save(tmp_path / "copy")
    path = tmp_path / "copy" / "latent_prior.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    output = mistake("generate", tmp_path / "copy")
    assert "latent_prior.safetensors is damaged" in output and "vaekit fit-prior" in output
