"""The same in scikit-learn: as a step of a pipeline, chosen by a search."""

import gc
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import vaekit
from command import refused, rings, user_error
from vaekit.sklearn import VAETransformer

MLP = {"kind": "mlp", "hidden": [32]}
SMALL: dict[str, Any] = {"encoder": MLP, "decoder": MLP, "ema": 0, "batch_size": 16, "threads": 1}
FAST = SMALL | {"learning_rate": 5e-3, "validation": "last:19"}
"""Held-out images too few for a prior to be fitted to the latents."""


def tiny(**given: Any) -> VAETransformer:
    settings = SMALL | given.pop("settings", {})
    return VAETransformer(**{"epochs": 2, "latents": 4, "samples": 10, "settings": settings} | given)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """[60, 10, 8]: not square, so that an axis in the wrong place shows."""
    return rings(60, 10)[:, :, 1:9, 0]


@pytest.fixture(scope="module")
def fitted(images: np.ndarray) -> VAETransformer:
    return tiny(epochs=10).fit(images)


def test_it_is_what_train_trains(images: np.ndarray, fitted: VAETransformer, tmp_path: Path) -> None:
    settings = SMALL | {"preset": "classic", "epochs": 10, "latents": 4, "seed": 0, "quiet": True}
    vae = vaekit.train(images, out=tmp_path / "run", **settings)
    z = fitted.transform(images)
    assert (z.shape, z.dtype) == ((60, 4), np.float32)
    np.testing.assert_array_equal(z, vae.encode(images))
    np.testing.assert_array_equal(fitted.inverse_transform(z), vae.decode(z)[..., 0])
    scores = fitted.score_samples(images)
    np.testing.assert_array_equal(scores, vae.log_likelihood(images, samples=10))
    assert fitted.score(images) == pytest.approx(scores.mean(), rel=1e-6)
    assert (fitted.n_features_in_, fitted.n_latents_, fitted.image_shape_) == (80, 4, (10, 8, 1))
    assert list(fitted.get_feature_names_out()) == [f"vaetransformer{i}" for i in range(4)]


def test_another_seed_is_another_model(images: np.ndarray) -> None:
    z = [tiny(epochs=1, random_state=seed).fit(images).transform(images) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(z[0], z[1])
    assert np.abs(z[2] - z[0]).max() > 0.1
    drawn = tiny(epochs=1, random_state=np.random.RandomState(3)).fit(images).vae_.config.training.seed
    assert drawn == np.random.RandomState(3).randint(2**31 - 1)


def test_rows_are_the_same_images(images: np.ndarray, fitted: VAETransformer) -> None:
    rows = images.reshape(60, 80) / 255
    flat = tiny(epochs=10, image_shape=(10, 8)).fit(rows)
    np.testing.assert_array_equal(flat.transform(rows), fitted.transform(images))
    copied = flat.inverse_transform(flat.transform(rows))
    assert (copied.shape, copied.dtype) == (rows.shape, np.float32)
    images_again = fitted.inverse_transform(fitted.transform(images))
    np.testing.assert_allclose(copied * 255, images_again.reshape(60, 80))
    np.testing.assert_array_equal(flat.score_samples(rows), fitted.score_samples(images))
    np.testing.assert_array_equal(flat.transform(images), flat.transform(rows))  # one model takes either
    np.testing.assert_array_equal(fitted.transform(rows), flat.transform(rows))


def test_colour_images_come_back_as_they_went_in() -> None:
    colour = rings(80, 8, 3)
    for given, shape in ((colour, None), (colour.reshape(80, -1), (8, 8, 3))):
        model = tiny(preset="sigma-vae", image_shape=shape, epochs=15, settings=FAST).fit(given)
        copied = model.inverse_transform(model.transform(given))
        assert (copied.shape, copied.dtype) == (given.shape, np.uint8)
        assert ((copied - given.astype(float)) ** 2).mean() < 0.7 * given.var(0).mean()


def test_latent_images_come_out_as_rows(images: np.ndarray) -> None:
    settings = {"encoder": {"kind": "conv", "channels": 8}, "decoder": {"kind": "conv", "channels": 8}}
    model = tiny(latents="2x5x4", settings=settings).fit(images)
    z = model.transform(images)
    assert z.shape == (60, 40)
    np.testing.assert_array_equal(model.inverse_transform(z), model.vae_.reconstruct(images)[..., 0])


def two_kinds() -> tuple[np.ndarray, np.ndarray]:
    kinds, labels = rings(240, 10)[..., 0], np.arange(240) % 2
    kinds[labels == 1, :, :5] = 0
    return kinds, labels


def test_a_classifier_on_its_latents() -> None:
    X, y = two_kinds()
    pipeline = make_pipeline(tiny(epochs=15, latents=8, settings=FAST), LogisticRegression())
    pipeline.fit(X[:160], y[:160])
    assert pipeline.score(X[160:], y[160:]) > 0.9
    assert list(pipeline[:-1].get_feature_names_out())[-1] == "vaetransformer7"


def test_a_search_chooses_what_makes_held_out_images_likelier(images: np.ndarray, tmp_path: Path) -> None:
    split = ShuffleSplit(1, test_size=0.3, random_state=0)
    choices = [FAST | {"objective": {"beta": beta}} for beta in (100.0, 1.0)]
    search = GridSearchCV(tiny(epochs=15), {"settings": choices}, cv=split, error_score="raise").fit(images)
    assert search.best_params_["settings"]["objective"] == {"beta": 1.0}
    rows, held_out = next(split.split(images))
    for index, choice in enumerate(choices):
        settings = {
            "preset": "classic",
            "epochs": 15,
            "latents": 4,
            "quiet": True,
            "out": tmp_path / str(index),
            **choice,
        }
        vae = vaekit.train(images[rows], report=False, **settings)
        expected = vae.log_likelihood(images[held_out], samples=10).mean()
        assert search.cv_results_["mean_test_score"][index] == pytest.approx(expected, rel=1e-6)


class Squashed(VAETransformer):
    """Any numbers as rows of pixels: scikit-learn's own checks bring numbers of every scale."""

    def _shape(self, X: np.ndarray) -> tuple[int, ...]:
        return 1, X.shape[1]

    def _images(self, X: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return super()._images(1 / (1 + np.exp(-X.astype(float))), shape)


NOISE = "the noise of score_samples is that of the place in X"
EXCEPTIONS = {
    "check_positive_only_tag_during_fit": "the class above takes negative numbers",
    "check_methods_sample_order_invariance": NOISE,
    "check_methods_subset_invariance": NOISE,
    "check_array_api_input": "needs an environment variable before SciPy is imported",
}


@parametrize_with_checks(
    [Squashed(epochs=1, latents=2, samples=2, settings=SMALL)], expected_failed_checks=lambda _: EXCEPTIONS
)
def test_the_rules_of_scikit_learn(estimator: VAETransformer, check: Callable[..., None]) -> None:
    check(estimator)


def test_latents_do_not_depend_on_place_or_rounding(fitted: VAETransformer, images: np.ndarray) -> None:
    z = fitted.transform(images)
    np.testing.assert_allclose(fitted.transform(images[::-1])[::-1], z, atol=1e-5)
    np.testing.assert_allclose(fitted.transform(images[7:8])[0], z[7], atol=1e-5)
    assert fitted.transform(images[:0]).shape == (0, 4)
    scaled = images / 255
    np.testing.assert_array_equal(fitted.transform(scaled * (1 + 1e-9) - 1e-12), fitted.transform(scaled))


def test_pickled_models_are_equal(fitted: VAETransformer, images: np.ndarray, tmp_path: Path) -> None:
    copied = pickle.loads(pickle.dumps(fitted))
    copied = pickle.loads(pickle.dumps(copied))
    np.testing.assert_array_equal(copied.transform(images), fitted.transform(images))
    np.testing.assert_array_equal(copied.score_samples(images), fitted.score_samples(images))
    np.testing.assert_array_equal(copied.vae_.sample(3), fitted.vae_.sample(3))
    assert copied.vae_.history.equals(fitted.vae_.history)
    copied.vae_.save(tmp_path / "saved")
    np.testing.assert_array_equal(vaekit.load(tmp_path / "saved").encode(images), fitted.transform(images))


def test_modules_of_ones_own_are_cloned_and_pickled(images: np.ndarray) -> None:
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(80, 16), torch.nn.ReLU())
    model = clone(tiny(settings={"encoder": encoder})).fit(images)
    text = pickle.dumps(model.set_params(settings=None))
    np.testing.assert_array_equal(pickle.loads(text).transform(images), model.transform(images))


def test_the_run_lives_as_long_as_the_model(images: np.ndarray) -> None:
    model = tiny().fit(images)
    first = model.vae_
    folder = first.run.folder.parent
    model.fit(images)
    del model
    gc.collect()
    assert len(first.history) == 2
    assert not (first.run.folder / "checkpoints").exists()
    del first
    gc.collect()
    assert not folder.exists()


def test_a_run_folder_of_ones_own_is_kept(images: np.ndarray, tmp_path: Path) -> None:
    model = tiny(out=tmp_path / "run").fit(images)
    z = model.transform(images)
    refused("already contains a run", model.fit, images)
    del model
    gc.collect()
    assert (tmp_path / "run" / "loss.png").exists()
    assert (tmp_path / "run" / "checkpoints").exists()
    np.testing.assert_array_equal(vaekit.load(tmp_path / "run").encode(images), z)


def test_a_model_without_its_folder_still_computes(images: np.ndarray, tmp_path: Path) -> None:
    model = tiny(out=tmp_path / "run").fit(images)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert model.transform(images).shape == (60, 4)
    assert np.isfinite(model.score(images))
    refused("no longer exists", pickle.dumps, model)


def test_no_output_and_no_needless_import(images: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    tiny().fit(images)
    assert capsys.readouterr() == ("", "")
    code = "import sys, vaekit, vaekit.api; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_invalid_calls_are_refused(images: np.ndarray, fitted: VAETransformer) -> None:
    for call in (VAETransformer().transform, VAETransformer().inverse_transform, VAETransformer().score):
        with pytest.raises(NotFittedError):
            call(images)
    with user_error(r"takes images \[N, 10, 8, 1\], not \[60, 8, 10, 1\]"):
        fitted.transform(images.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="X has 79 features, but VAETransformer is expecting 80"):
        fitted.score(images.reshape(60, 80)[:, :79])
    refused(r"\[2, 5\], but this model has \[N, 4\]", fitted.inverse_transform, np.zeros((2, 5)))
    with user_error("`samples`: must be a whole number from 1"):
        clone(fitted).set_params(samples=0, epochs=1).fit(images).score(images)


ROWS = load_digits().data[:50]


UNIT_ROWS, SQUARES = ROWS / 16, ROWS.reshape(-1, 8, 8) / 16
SHAPE = {"image_shape": (8, 8)}
INVALID: list[tuple[np.ndarray, dict[str, Any], str]] = [
    (ROWS, SHAPE, r"range from 0 to 16, but pixels range from 0 to 1. Divide by .* X / 16"),
    (ROWS / 8 - 1, SHAPE, r"range from -1 to 1 instead of 0 to 1. Undo the normalization"),
    (ROWS.astype(int) * 300, SHAPE, "values of X range from .* instead of levels from 0 to 255"),
    (UNIT_ROWS, {}, r"rows of 64 features. Give the shape of an image: image_shape=\(8, 8\)"),
    (UNIT_ROWS[:, :63], {}, r"image_shape=\(H, W\) or \(H, W, C\)"),
    (UNIT_ROWS, {"image_shape": (8, 7)}, r"image_shape \(8, 7\) has 56 features, but the rows of X have 64"),
    (UNIT_ROWS, {"image_shape": 64}, "image_shape must be .* .got 64.."),
    (SQUARES, {"image_shape": (4, 16)}, r"X has images \[8, 8\], but image_shape is \[4, 16\]"),
    (SQUARES / np.nan, {}, "X contains NaN"),
    (SQUARES[:1], {}, "1 sample"),
    (SQUARES, {"settings": {"epochs": 3}}, r"Use VAETransformer\(epochs=\.\.\.\)"),
    (SQUARES, {"settings": {"seed": 3}}, r"Use VAETransformer\(random_state=\.\.\.\)"),
    (SQUARES, {"settings": {"conditional": True}}, "without labels. Use vaekit.train"),
    (SQUARES, {"settings": {"condition": "age"}}, "without labels. Use vaekit.train"),
    (SQUARES, {"settings": {"btch_size": 3}}, "Did you mean 'batch_size'"),
    (SQUARES, {"settings": 3}, "settings must be a dictionary .* Got 3"),
    (SQUARES, {"preset": "clasic"}, "Did you mean 'classic'"),
]


@pytest.mark.parametrize(("X", "params", "text"), INVALID)
def test_invalid_input_is_refused_before_training(X: np.ndarray, params: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        VAETransformer(**params).fit(X)


def test_a_model_without_likelihood_has_no_score(images: np.ndarray) -> None:
    model = tiny(preset="ae").fit(images)
    assert model.transform(images).shape == (60, 4)
    for call in (model.score_samples, model.score):
        refused("single point without density", call, images)


def test_values_beyond_those_of_the_fit_are_clipped(images: np.ndarray, fitted: VAETransformer) -> None:
    """As a scaler leaves them that was fitted to other rows."""
    beyond = images / 255.0
    beyond[0, 0, 0], beyond[1, 1, 1] = 1.2, -0.1
    with pytest.warns(UserWarning, match="range from -0.1 to 1.2 and are clipped"):
        z = fitted.transform(beyond)
    np.testing.assert_array_equal(z, fitted.transform(beyond.clip(0, 1)))
    beyond[2, 0, 0] = 17.0
    with pytest.warns(UserWarning, match="range from -0.1 to 17 and are clipped"):
        np.testing.assert_array_equal(fitted.transform(beyond)[2:], fitted.transform(beyond.clip(0, 1))[2:])
    refused("instead of", fitted.transform, beyond - 0.6)
    refused("pixels range from 0 to 1", fitted.transform, images.astype(float))


def test_dark_images_are_warned_of(images: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="nearly black"):
        tiny(epochs=1).fit(images // 16)
