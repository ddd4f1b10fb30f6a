"""The likelihood of a trained model: exact where the answer is known, and through every way a user has."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.distributions import MultivariateNormal

import vaekit
from command import rings
from command import vaekit as command
from vaekit.config.overrides import resolve
from vaekit.errors import UserError
from vaekit.evaluation.likelihood import estimate_importance, evaluate_likelihood
from vaekit.evaluation.text import lines
from vaekit.models.builder import build
from vaekit.models.registry import Capability, components
from vaekit.models.vae import VAE

PIXELS, SIGMA = 6, 0.5


def linear_gaussian(wrong: float) -> tuple[VAE, Tensor, Tensor]:
    """A model of linear maps and Gaussian noise, images from it, and their exact log p(x). Its posterior is the true
    one, moved and widened by `wrong`; the third latent is not used at all."""
    config = resolve(
        {
            "latents": 3,
            "encoder": {"kind": "mlp", "hidden": "none"},
            "decoder": {"kind": "mlp", "hidden": "none"},
            "likelihood": {"kind": "gaussian", "levels": "none", "sigma": "fixed", "scale": SIGMA},
        }
    )
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


def test_the_bound_rises_with_samples_to_the_exact_likelihood() -> None:
    model, x, exact = linear_gaussian(wrong=0.4)
    found = estimate_importance(model, x, None, 10_000)
    assert list(found.bounds) == [1, 10, 100, 1000, 10_000]
    means = [bound.mean().item() for bound in found.bounds.values()]
    assert means[0] < exact.mean().item() - 0.2
    assert means[0] < means[1] < means[2] < means[3] + 0.01
    torch.testing.assert_close(found.bounds[10_000], exact.double(), atol=0.3, rtol=0)
    assert means[-1] == pytest.approx(exact.mean().item(), abs=0.01)
    assert (found.effective < 9_000).all()


def test_under_the_true_posterior_every_sample_weighs_the_same() -> None:
    model, x, exact = linear_gaussian(wrong=0.0)
    found = estimate_importance(model, x, None, 10)
    for bound in found.bounds.values():
        torch.testing.assert_close(bound, exact.double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.effective, torch.full((200,), 10.0).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(found.log_px - found.kl, exact.double(), atol=1e-3, rtol=0)


def test_the_judgement_adds_up() -> None:
    model, x, exact = linear_gaussian(wrong=0.0)
    found = evaluate_likelihood(model, [(x[:64], None), (x[64:], None)], samples=20, seed=0)
    assert found["images"] == 200
    assert found["nll"] == pytest.approx(-exact.mean().item(), abs=1e-3)
    assert found["nll_standard_error"] == pytest.approx(exact.std().item() / math.sqrt(200), rel=1e-3)
    assert found["elbo"] == pytest.approx(-found["reconstruction"] - found["kl"])
    assert (found["active_units"], found["latents"]) == (2, 3)  # the third posterior mean is the same for every image
    assert found["kl_per_latent"][2] == pytest.approx(0, abs=1e-5)
    assert sum(found["kl_per_latent"]) == pytest.approx(found["kl"], rel=0.1)
    assert found["bits_per_dimension"] is None  # a density has none
    assert evaluate_likelihood(model, [(x[:64], None), (x[64:], None)], samples=20, seed=0) == found
    assert evaluate_likelihood(model, [(x[:64], None), (x[64:], None)], samples=20, seed=1)["elbo"] != found["elbo"]


def test_the_effective_sample_size_by_hand() -> None:
    """(sum w)^2 / sum w^2 of unequal weights, taken again with the same draws: weights 1 and 3 count as 1.6 samples."""
    model, x, _ = linear_gaussian(wrong=0.4)
    torch.manual_seed(3)
    found = estimate_importance(model, x, None, 7)
    torch.manual_seed(3)
    q, p, stops = model.encode(x), model.prior(model.encode), (1, 6)  # as many draws at a time as lie between bounds
    z = torch.cat([q.rsample((count,)) for count in stops])
    log_w = (model.decode(z).log_prob(x) + p.log_prob(z) - q.log_prob(z)).double()
    w = (log_w - log_w.max(0).values).exp()
    torch.testing.assert_close(found.effective, w.sum(0).square() / w.square().sum(0), rtol=1e-3, atol=1e-3)
    assert (found.effective < 6.9).any()


@pytest.mark.parametrize("prior", list(components("prior")))
@pytest.mark.parametrize("posterior", list(components("posterior")))
def test_every_pair_of_posterior_and_prior_is_judged(posterior: str, prior: str) -> None:
    layers: dict[str, Any] = {"posterior": posterior, "prior": prior, "conditional": prior == "class"}
    try:
        config = resolve({"latents": 3, "encoder": "mlp", "decoder": "mlp", "likelihood": "gaussian", **layers})
        model, _ = build(config, (1, 4, 4), 2)
    except UserError:
        return
    y = torch.arange(5) % 2 if config.conditional else None
    found = evaluate_likelihood(model.eval(), [(torch.randint(0, 256, (5, 1, 4, 4)) / 255, y)], samples=12, seed=0)
    bounds = list(found["bounds"].values())
    assert all(map(math.isfinite, bounds)) and -found["nll"] == bounds[-1] >= found["elbo"] - 1e-6
    assert 1 <= found["effective_sample_size"]["mean"] <= 12


@pytest.mark.parametrize(
    ("likelihood", "gray", "measure"),
    [
        ("bernoulli", True, "cross-entropy"),
        ("bernoulli", False, "probability"),
        ("binarized", True, "probability"),
        ("continuous_bernoulli", True, "density"),
        ("gaussian", True, "probability"),
        ({"kind": "laplace", "levels": "none"}, True, "density"),
        ("logistic_mixture", True, "probability"),
    ],
)
def test_what_is_no_likelihood_of_the_images_is_not_called_one(likelihood: Any, gray: bool, measure: str) -> None:
    config = resolve({"latents": 3, "encoder": "mlp", "decoder": "mlp", "likelihood": likelihood})
    model, _ = build(config, (1, 4, 4))
    x = torch.randint(0, 256, (5, 1, 4, 4)) / 255
    found = evaluate_likelihood(model.eval(), [(x if gray else x.round(), None)], samples=2, seed=0)
    assert found["measure"] == measure
    said = "\n".join(lines({"side": "test", "data": "x", **found}))
    assert ("cross-entropy of pixels between" in said) == (measure == "cross-entropy")
    assert ("bits/dim" in said.replace("no bits/dim", "")) == (Capability.NORMALIZED in model.likelihood.provides)


@pytest.mark.parametrize(("wrong", "loose"), [(0.0, False), (3.0, True)])
def test_a_bound_that_a_sample_or_two_decide_is_called_loose(wrong: float, loose: bool) -> None:
    model, x, _ = linear_gaussian(wrong)
    found = evaluate_likelihood(model, [(x, None)], samples=20, seed=0)
    assert ("so few that the true NLL" in "\n".join(lines({"side": "test", "data": "x", **found}))) == loose


def test_pixels_drawn_to_be_judged_are_drawn_again_the_same() -> None:
    model, _ = build(resolve({"latents": 3, "encoder": "mlp", "decoder": "mlp", "likelihood": "binarized"}), (1, 4, 4))
    x = torch.rand(20, 1, 4, 4)
    first, again = (evaluate_likelihood(model.eval(), [(x, None)], samples=3, seed=0)["nll"] for _ in range(2))
    assert first == again


def test_a_latent_is_active_whose_mean_varies_by_more_than_a_hundredth() -> None:
    model, x, _ = linear_gaussian(wrong=0.0)
    x = torch.randn_like(x)
    with torch.no_grad():
        model.posterior.head.weight.zero_()
        for latent, variance in enumerate((0.02, 0.005, 0.0001)):
            model.posterior.head.weight[latent, latent] = math.sqrt(variance)
    assert evaluate_likelihood(model, [(x, None)], samples=1, seed=0)["active_units"] == 1


def test_weights_that_are_equal_count_fully_at_any_size() -> None:
    """A decoder that ignores z, and the prior as posterior: every weight is the same, of tens of thousands of nats."""
    config = resolve({"latents": 4, "encoder": "mlp", "decoder": "mlp"}, preset="sigma-vae")
    model, _ = build(config, (3, 64, 64))
    with torch.no_grad():
        for weight in (model.posterior.head.weight, model.posterior.head.bias, model.decoder.layers.first.weight):
            weight.zero_()
    found = estimate_importance(model.eval(), torch.randint(0, 256, (2, 3, 64, 64)) / 255, None, 300)
    torch.testing.assert_close(found.effective, torch.full((2,), 300.0).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(found.bounds[1], found.bounds[300], atol=1e-3, rtol=3e-7)  # log p(x | z) is in 32 bits


TINY = {"epochs": 1, "latents": 4, "encoder": "mlp", "decoder": "mlp", "batch_size": 16, "quiet": True}


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> vaekit.TrainedModel:
    out = tmp_path_factory.mktemp("runs") / "colour"
    return vaekit.train((rings(90, 12, 3), np.arange(90) % 3), out=out, conditional=True, **TINY)


def test_likelihoods_of_single_images_average_to_the_evaluation(colour: vaekit.TrainedModel) -> None:
    images, labels = rings(70, 12, 3), np.arange(70) % 3
    each = colour.log_likelihood(images, labels, samples=30)
    assert (each.shape, each.dtype) == ((70,), np.float32)
    np.testing.assert_array_equal(each, colour.log_likelihood(images, labels, samples=30))
    whole = colour.evaluate((images, labels), samples=30, quiet=True)
    assert whole["images"] == 70
    assert whole["nll"] == pytest.approx(-each.mean(), rel=2e-3)
    assert whole["bits_per_dimension"] == pytest.approx(whole["nll"] / (432 * math.log(2)))
    assert json.loads(colour.run.evaluation.read_text()) == whole
    with pytest.raises(UserError, match="class of every image"):
        colour.log_likelihood(images)
    with pytest.raises(UserError, match="0 samples are not possible"):
        colour.log_likelihood(images, labels, samples=0)


def test_what_cannot_be_judged_is_said(colour: vaekit.TrainedModel) -> None:
    with pytest.raises(UserError, match="name other images to judge by with --data"):
        vaekit.load(colour.run.folder).evaluate()  # trained on an array, which is not there any more
    with pytest.raises(UserError, match="3 colour channels"):
        colour.evaluate((rings(20, 12), np.arange(20) % 3))
    with pytest.raises(UserError, match="knows no class"):
        colour.evaluate((rings(20, 12, 3), np.arange(20) % 5))


def test_its_own_images_are_known_wherever_they_lie(tmp_path: Path) -> None:
    """Else its training images would be judged as if it had never seen them."""
    images = rings(120, 12)
    np.save(tmp_path / "own.npy", images)
    model = vaekit.train(tmp_path / "own.npy", out=tmp_path / "run", preset="classic", **TINY)
    found = model.evaluate(samples=2, quiet=True)
    (tmp_path / "own.npy").rename(tmp_path / "moved.npy")
    for again in (tmp_path / "moved.npy", images):
        same = vaekit.load(tmp_path / "run").evaluate(again, samples=2, quiet=True)
        assert same["side"] == "validation" and same["own"] and same["nll"] == found["nll"]
        assert same["memorisation"] == found["memorisation"]
    np.save(tmp_path / "own.npy", rings(121, 12))  # one more than it was trained on: most are no strangers
    with pytest.raises(UserError, match="not there as they were"):
        vaekit.load(tmp_path / "run").evaluate(tmp_path / "own.npy", samples=2)
    other = vaekit.load(tmp_path / "run").evaluate(rings(50, 12, seed=5), samples=2, quiet=True)
    assert other["side"] == "all" and not other["own"] and other["memorisation"] is None
    assert not (tmp_path / "run" / "nearest.png").exists()


def test_images_from_elsewhere_do_not_make_a_model_ill(tmp_path: Path) -> None:
    """That noise comes back badly says nothing of what was learned by heart."""
    model = vaekit.train(rings(2600, 12), out=tmp_path / "run", preset="classic", **TINY)
    noise = np.random.default_rng(0).integers(0, 256, (100, 12, 12, 1)).astype(np.uint8)
    found = model.evaluate(noise, samples=2, quiet=True)
    assert found["reconstructions"]["mse"] > 1.5 * found["learned"]["mse"]
    assert not {"overfitting", "too little data"} & {one["name"] for one in found["diagnosis"]}


def test_too_few_new_images_or_held_out_ones_are_met_in_a_sentence(colour: vaekit.TrainedModel) -> None:
    with pytest.raises(UserError, match="3 new images are not possible: ask for a whole number from 50"):
        colour.evaluate(new_images=3)
    found = colour.evaluate((rings(3, 12, 3), [0, 1, 2]), samples=2, quiet=True)
    assert found["active_units"] is None and "posterior collapse" not in {one["name"] for one in found["diagnosis"]}
    assert "not told: it takes 20 images" in "\n".join(lines(found))


def test_the_verb_writes_a_file_and_a_table(tmp_path: Path) -> None:
    images = rings(80, 12)[..., 0]
    np.savez(tmp_path / "all.npz", x_train=images[:50], x_test=images[50:])
    run = tmp_path / "run"
    tiny = ("--epochs", 1, "--latents", 4, "--encoder.kind", "mlp", "--decoder.kind", "mlp", "--batch-size", 16)
    command("train", tmp_path / "all.npz", "--out", run, *tiny)
    said = command("evaluate", run, "--samples", 20)
    assert "30 images of" in said and "test side" in said and "active latents" in said and "evaluation.json" in said
    found = json.loads((run / "evaluation.json").read_text())
    assert (found["side"], found["images"], found["samples"]) == ("test", 30, 20)
    assert f"{found['nll']:.2f}" in said
    with Image.open(run / "nearest.png") as picture:
        assert picture.width > 100
    np.save(tmp_path / "others.npy", rings(40, 24)[..., 0])
    assert "40 images of" in command("evaluate", run, "--samples", 5, "--data", tmp_path / "others.npy")
    plain = tmp_path / "plain"
    command("train", tmp_path / "all.npz", "--out", plain, "--preset", "ae", *tiny)
    said = command("evaluate", plain)
    assert "NLL             none: the posterior is a single point without density" in said and "PSNR" in said
    assert "30 held-out images are too few to compare sets, which takes 100: --data names a folder of more" in said
    assert "pip install torch-fidelity" in command("doctor")
