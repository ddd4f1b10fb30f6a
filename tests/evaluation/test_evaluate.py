"""The likelihood of a trained model: exact where the answer is known, and through all interfaces."""

import json
import math
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytest import MonkeyPatch
from torch import Tensor
from torch.distributions import MultivariateNormal

import vaekit
from command import MLP, refused, rings, user_error
from command import vaekit as command
from vaekit import TrainedModel
from vaekit.config.overrides import resolve
from vaekit.errors import UserError
from vaekit.evaluation.features import Extractor
from vaekit.evaluation.likelihood import estimate_importance, evaluate_likelihood
from vaekit.evaluation.results import EvaluationResult, Likelihood
from vaekit.evaluation.text import format_evaluation, sections
from vaekit.models.builder import build
from vaekit.models.registry import Capability, components
from vaekit.models.vae import VAE

PIXELS = 6
SIGMA = 0.5


def linear_gaussian(wrong: float) -> tuple[VAE, Tensor, Tensor]:
    """A model, images from it, and their exact log p(x); `wrong` moves and widens the true posterior."""
    linear = {"kind": "mlp", "hidden": "none"}
    noise = {"kind": "gaussian", "levels": "none", "sigma": "fixed", "scale": SIGMA}
    config = resolve({"latents": 3, "encoder": linear, "decoder": linear, "likelihood": noise})
    model, _ = build(config, (1, 2, 3))
    weight = torch.zeros(PIXELS, 3)
    weight[:3, 0] = torch.tensor([1.0, 2.0, -1.0])
    weight[3:, 1] = torch.tensor([0.5, 1.0, 1.0])  # columns at right angles: the true posterior is diagonal
    offset = torch.linspace(-1, 1, PIXELS)
    squares = weight.square().sum(0) / SIGMA**2
    variance = 1 / (1 + squares)
    with torch.no_grad():
        model.decoder.layers.first.weight.copy_(weight)
        model.decoder.layers.first.bias.copy_(offset)
        means = variance[:, None] * weight.T / SIGMA**2
        model.posterior.head.weight.copy_(torch.cat([means, torch.zeros(3, PIXELS)]))
        raw = 15 * torch.atanh((variance.log() + wrong) / 15)
        model.posterior.head.bias.copy_(torch.cat([-means @ offset + wrong, raw]))
    x = offset + torch.randn(200, 3) @ weight.T + SIGMA * torch.randn(200, PIXELS)
    covariance = weight @ weight.T + SIGMA**2 * torch.eye(PIXELS)
    return model.eval(), x.reshape(-1, 1, 2, 3), MultivariateNormal(offset, covariance).log_prob(x)


def test_bound_rises_to_the_exact_likelihood() -> None:
    model, x, exact = linear_gaussian(wrong=0.4)
    result = estimate_importance(model, x, None, 10_000)
    assert list(result.bounds) == [1, 10, 100, 1000, 10_000]
    means = [bound.mean().item() for bound in result.bounds.values()]
    assert means[0] < exact.mean().item() - 0.2
    assert means[0] < means[1] < means[2] < means[3] + 0.01
    torch.testing.assert_close(result.bounds[10_000], exact.double(), atol=0.3, rtol=0)
    assert means[-1] == pytest.approx(exact.mean().item(), abs=0.01)
    assert (result.effective < 9_000).all()


def test_true_posterior_gives_equal_weights() -> None:
    model, x, exact = linear_gaussian(wrong=0.0)
    result = estimate_importance(model, x, None, 10)
    for bound in result.bounds.values():
        torch.testing.assert_close(bound, exact.double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(result.effective, torch.full((200,), 10.0).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(result.log_px - result.kl, exact.double(), atol=1e-3, rtol=0)


def test_likelihood_terms_add_up() -> None:
    model, x, exact = linear_gaussian(wrong=0.0)
    result, latents = evaluate_likelihood(model, [(x[:64], None), (x[64:], None)], samples=20, seed=0)
    assert result.nll == pytest.approx(-exact.mean().item(), abs=1e-3)
    assert result.nll_standard_error == pytest.approx(exact.std().item() / math.sqrt(200), rel=1e-3)
    assert result.elbo == pytest.approx(-result.reconstruction - result.kl)
    assert (latents.active, latents.total) == (2, 3)  # the third posterior mean is the same for every image
    assert latents.kl is not None and latents.kl[2] == pytest.approx(0, abs=1e-5)
    assert sum(latents.kl) == pytest.approx(result.kl, rel=0.1)
    assert result.bits_per_dimension is None  # a density has none
    for seed in (0, 1):
        same = evaluate_likelihood(model, [(x[:64], None), (x[64:], None)], samples=20, seed=seed)
        assert (same == (result, latents)) == (seed == 0)


def test_effective_sample_size_by_hand() -> None:
    """(sum w)^2 / sum w^2 of unequal weights, with the same draws: weights 1 and 3 count as 1.6 samples."""
    model, x, _ = linear_gaussian(wrong=0.4)
    torch.manual_seed(3)
    result = estimate_importance(model, x, None, 7)
    torch.manual_seed(3)
    q, p = model.encode(x), model.prior(model.encode)
    stops = (1, 6)  # as many draws at a time as lie between bounds
    z = torch.cat([q.rsample((count,)) for count in stops])
    log_w = (model.decode(z).log_prob(x) + p.log_prob(z) - q.log_prob(z)).double()
    w = (log_w - log_w.max(0).values).exp()
    torch.testing.assert_close(result.effective, w.sum(0).square() / w.square().sum(0), rtol=1e-3, atol=1e-3)
    assert (result.effective < 6.9).any()


@pytest.mark.parametrize("prior", list(components("prior")))
@pytest.mark.parametrize("posterior", list(components("posterior")))
def test_likelihood_of_every_posterior_and_prior(posterior: str, prior: str) -> None:
    layers: dict[str, Any] = {"posterior": posterior, "prior": prior, "conditional": prior == "class"}
    try:
        config = resolve(MLP | {"likelihood": "gaussian", **layers})
        model, _ = build(config, (1, 4, 4), 2)
    except UserError:
        return
    y = torch.arange(5) % 2 if config.conditional else None
    x = torch.randint(0, 256, (5, 1, 4, 4)) / 255
    result, _ = evaluate_likelihood(model.eval(), [(x, y)], samples=12, seed=0)
    bounds = list(result.bounds.values())
    assert all(map(math.isfinite, bounds)) and -result.nll == bounds[-1] >= result.elbo - 1e-6
    assert 1 <= result.effective_sample_size.mean <= 12


def shown(result: EvaluationResult) -> str:
    return "\n".join(format_evaluation(result, 200))


def with_likelihood(likelihood: Likelihood) -> EvaluationResult:
    record = json.loads((Path(__file__).parent / "recorded" / "rings.json").read_text())["evaluation"]
    settings = {"samples": 20, "prior_gap": None, "memorization": None, "training_reconstruction": None}
    return EvaluationResult.model_validate(record | settings | {"likelihood": likelihood.model_dump()})


KINDS = [("gaussian", True), ("binarized", True), ("bernoulli", False), ("logistic_mixture", True)]
CASES: list[tuple[Any, bool, str]] = [(*case, "probability") for case in KINDS]
CASES += [("bernoulli", True, "cross-entropy"), ("continuous_bernoulli", True, "density")]
CASES += [({"kind": "laplace", "levels": "none"}, True, "density")]


@pytest.mark.parametrize(("likelihood", "gray", "measure"), CASES)
def test_kind_of_likelihood(likelihood: Any, gray: bool, measure: str) -> None:
    config = resolve(MLP | {"likelihood": likelihood})
    model, _ = build(config, (1, 4, 4))
    x = torch.randint(0, 256, (5, 1, 4, 4)) / 255
    result, _ = evaluate_likelihood(model.eval(), [(x if gray else x.round(), None)], samples=2, seed=0)
    assert result.kind == measure
    text = shown(with_likelihood(result))
    assert ("cross-entropy of gray pixels" in text) == (measure == "cross-entropy")
    normalized = Capability.NORMALIZED in model.likelihood.provides
    assert ("bits/dim" in text.replace("bits/dim   ", "")) == normalized


@pytest.mark.parametrize(("wrong", "loose"), [(0.0, False), (3.0, True)])
def test_few_effective_samples_are_reported(wrong: float, loose: bool) -> None:
    model, x, _ = linear_gaussian(wrong)
    result, _ = evaluate_likelihood(model, [(x, None)], samples=20, seed=0)
    assert ("Too few effective samples" in shown(with_likelihood(result))) == loose


def test_binarized_pixels_are_reproducible() -> None:
    model, _ = build(resolve(MLP | {"likelihood": "binarized"}), (1, 4, 4))
    x = torch.rand(20, 1, 4, 4)
    once, twice = (evaluate_likelihood(model.eval(), [(x, None)], samples=3, seed=0)[0] for _ in range(2))
    assert once.nll == twice.nll


def test_active_units_by_variance_of_means() -> None:
    model, x, _ = linear_gaussian(wrong=0.0)
    x = torch.randn_like(x)
    with torch.no_grad():
        model.posterior.head.weight.zero_()
        for latent, variance in enumerate((0.02, 0.005, 0.0001)):
            model.posterior.head.weight[latent, latent] = math.sqrt(variance)
    assert evaluate_likelihood(model, [(x, None)], samples=1, seed=0)[1].active == 1


def test_equal_weights_of_large_images_count_fully() -> None:
    """A decoder that ignores z, and the prior as posterior: all weights are tens of thousands of nats."""
    config = resolve({"latents": 4, "encoder": "mlp", "decoder": "mlp"}, preset="sigma-vae")
    model, _ = build(config, (3, 64, 64))
    with torch.no_grad():
        head, first = model.posterior.head, model.decoder.layers.first
        for weight in (head.weight, head.bias, first.weight):
            weight.zero_()
    result = estimate_importance(model.eval(), torch.randint(0, 256, (2, 3, 64, 64)) / 255, None, 300)
    torch.testing.assert_close(result.effective, torch.full((2,), 300.0).double(), atol=0.01, rtol=0)
    # log p(x | z) is in 32 bits
    torch.testing.assert_close(result.bounds[1], result.bounds[300], atol=1e-3, rtol=3e-7)


TINY = MLP | {"epochs": 1, "quiet": True, "report": False, "callbacks": []}


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    out = tmp_path_factory.mktemp("runs") / "colour"
    return vaekit.train((rings(90, 12, 3), np.arange(90) % 3), out=out, conditional=True, **TINY)


def test_log_likelihood_averages_to_the_evaluation(colour: TrainedModel) -> None:
    images, labels = rings(70, 12, 3), np.arange(70) % 3
    each = colour.log_likelihood(images, labels, samples=30)
    assert (each.shape, each.dtype) == ((70,), np.float32)
    np.testing.assert_array_equal(each, colour.log_likelihood(images, labels, samples=30))
    evaluation = colour.evaluate((images, labels), samples=30, quiet=True)
    assert evaluation["images"] == 70
    assert evaluation["likelihood"]["nll"] == pytest.approx(-each.mean(), rel=2e-3)
    bits = evaluation["likelihood"]["nll"] / (432 * math.log(2))
    assert evaluation["likelihood"]["bits_per_dimension"] == pytest.approx(bits)
    assert json.loads(colour.run.evaluation.read_text()) == evaluation
    refused("class of every image", colour.log_likelihood, images)


def test_invalid_and_too_few_images(colour: TrainedModel) -> None:
    with user_error("Give other images with `data`"):
        vaekit.load(colour.run.folder).evaluate()  # trained on an array, which is not there any more
    message = r"have no classes, and this model is conditional. Put each of its classes \(0, 1, 2\)"
    refused(message, colour.evaluate, rings(20, 12, 3), quiet=True)
    refused("takes colour images", colour.evaluate, (rings(20, 12), np.arange(20) % 3))
    refused("Unknown class", colour.evaluate, (rings(20, 12, 3), np.arange(20) % 5))
    refused("`new_images`: must be a whole number from 50", colour.evaluate, new_images=3)
    result = colour.evaluate((rings(3, 12, 3), [0, 1, 2]), samples=2, quiet=True)
    assert result["latents"]["active"] is None
    assert "posterior collapse" not in {one["name"] for one in result["diagnosis"]}
    assert "needs at least 20 images" in shown(EvaluationResult.model_validate(result))


def test_training_data_is_recognized_wherever_it_lies(tmp_path: Path) -> None:
    """Otherwise its training images would be evaluated as if they were new."""
    images = rings(120, 12)
    np.save(tmp_path / "own.npy", images)
    model = vaekit.train(tmp_path / "own.npy", out=tmp_path / "run", preset="classic", **TINY)
    result = model.evaluate(samples=2, quiet=True)
    (tmp_path / "own.npy").rename(tmp_path / "moved.npy")
    for data in (tmp_path / "moved.npy", images):
        same = vaekit.load(tmp_path / "run").evaluate(data, samples=2, quiet=True)
        assert same["split"] == "validation" and same["same_dataset"]
        assert same["likelihood"] == result["likelihood"]
        assert same["memorization"] == result["memorization"]
    np.save(tmp_path / "own.npy", rings(121, 12))  # one more than it was trained on: most are no strangers
    with user_error("have changed since training"):
        vaekit.load(tmp_path / "run").evaluate(tmp_path / "own.npy", samples=2)
    other = vaekit.load(tmp_path / "run").evaluate(rings(50, 12, seed=5), samples=2, quiet=True)
    assert other["split"] == "all" and not other["same_dataset"] and other["memorization"] is None
    assert not (tmp_path / "run" / "nearest.png").exists()


def test_other_images_cause_no_overfitting_finding(tmp_path: Path) -> None:
    """Noise that is reconstructed badly is no sign of memorization."""
    model = vaekit.train(rings(2600, 12), out=tmp_path / "run", preset="classic", **TINY)
    noise = np.random.default_rng(0).integers(0, 256, (100, 12, 12, 1)).astype(np.uint8)
    result = model.evaluate(noise, samples=2, quiet=True)
    assert result["reconstruction"]["mse"] > 1.5 * result["training_reconstruction"]["mse"]
    assert not {"overfitting", "too little data"} & {one["name"] for one in result["diagnosis"]}


def test_command_writes_a_file_and_a_table(tmp_path: Path) -> None:
    images = rings(80, 12)[..., 0]
    np.savez(tmp_path / "all.npz", x_train=images[:50], x_test=images[50:])
    run = tmp_path / "run"
    mlp = ("--encoder.kind", "mlp", "--decoder.kind", "mlp")
    tiny = ("--epochs", 1, "--latents", 4, *mlp, "--batch-size", 16)
    command("train", tmp_path / "all.npz", "--out", run, *tiny)
    text = command("evaluate", run, "--samples", 20)
    assert all(part in text for part in ("30 images of", "test split", "active latents", "evaluation.json"))
    result = json.loads((run / "evaluation.json").read_text())
    assert (result["split"], result["images"], result["samples"]) == ("test", 30, 20)
    assert f"{result['likelihood']['nll']:.2f}" in text
    with Image.open(run / "nearest.png") as picture:
        assert picture.width > 100
    np.save(tmp_path / "others.npy", rings(40, 24)[..., 0])
    assert "40 images of" in command("evaluate", run, "--samples", 5, "--data", tmp_path / "others.npy")
    plain = tmp_path / "plain"
    command("train", tmp_path / "all.npz", "--out", plain, "--preset", "ae", *tiny)
    text = command("evaluate", plain)
    assert "NLL             n/a: the posterior has no density" in text and "PSNR" in text
    assert "needs 100 held-out images, has 30; give more with --data FOLDER" in text
    assert "pip install torch-fidelity" in command("doctor")


def test_progress_and_text_of_a_full_evaluation(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    done: dict[str, int] = {"total": 0}

    @contextmanager
    def progress(total: int, *_: object, **__: object) -> Iterator[Callable[[int, str], None]]:
        done["total"] = total
        yield lambda n, part: done.update({part: done.get(part, 0) + n})

    features = Extractor("Mean colours", False, "not", lambda x: x.float().mean((2, 3)))
    monkeypatch.setattr("vaekit.evaluation.evaluate.progress", progress)
    monkeypatch.setattr("vaekit.evaluation.evaluate.load_extractor", lambda: (features, ""))
    monkeypatch.chdir(tmp_path)
    np.save("many rings.npy", rings(400, 12))
    settings = TINY | {"latents": 20, "validation": 0.4, "objective": {"beta": 50.0}, "epochs": 2}
    model = vaekit.train("many rings.npy", out="run", preset="classic", **settings)
    result = EvaluationResult.model_validate(model.evaluate(samples=3, quiet=True))
    assert sum(done.values()) == 2 * done.pop("total") and done["Likelihood"] == 3 * result.images
    assert result.fidelity is not None
    assert {"new", "other_held_out", "training"} <= result.fidelity.sets.keys()
    lines = format_evaluation(result, 80)
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line[0] != " "][1:] == ["Diagnosis", *sections(result)]
    start = next(i for i, line in enumerate(lines) if "Fix: " in line)
    end = next(i for i in range(start, len(lines)) if not lines[i].endswith("\\"))
    pasted = "\n".join(lines[start : end + 1]).replace("\\\n", "")
    assert shlex.split(pasted)[1:] == shlex.split(result.diagnosis[0].fix)
