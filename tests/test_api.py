"""The same from Python."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import vaekit
from command import refused, rings, user_error
from vaekit import TrainedModel
from vaekit.config.training import TrainingConfig

SMALL_CONV = {"latents": 4, "encoder": {"channels": 8}, "decoder": {"channels": 8}, "batch_size": 16}
TINY = SMALL_CONV | {"preset": "classic", "epochs": 2, "quiet": True, "report": False, "callbacks": []}


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return vaekit.train(rings(60, 12)[..., 0], out=tmp_path_factory.mktemp("runs") / "gray", **TINY)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    labelled = (rings(60, 12, 3), np.arange(60) % 3)
    return vaekit.train(labelled, out=tmp_path_factory.mktemp("runs") / "classes", conditional=True, **TINY)


def test_samples_have_documented_shapes_and_depend_on_the_seed(gray: TrainedModel) -> None:
    images = gray.sample(16, seed=0)
    assert (images.shape, images.dtype) == ((16, 12, 12, 1), np.uint8)
    z = gray.encode(images)
    assert (z.shape, z.dtype) == ((16, 4), np.float32)
    assert (gray.decode(z).shape, gray.decode(z).dtype) == ((16, 12, 12, 1), np.uint8)
    np.testing.assert_array_equal(gray.reconstruct(images), gray.decode(z))
    assert list(gray.history["epoch"]) == [1, 2]
    np.testing.assert_array_equal(gray.sample(100, seed=5)[:7], gray.sample(7, seed=5))
    assert not np.array_equal(gray.sample(7, seed=5), gray.sample(7, seed=6))
    assert gray.sample(0).shape == (0, 12, 12, 1)


def test_images_in_any_form_and_none(gray: TrainedModel) -> None:
    images = rings(5, 12)
    np.testing.assert_array_equal(gray.encode(images), gray.encode(images / 255))
    np.testing.assert_array_equal(gray.encode(images), gray.encode(images[..., 0]))
    z = gray.encode(images)
    np.testing.assert_allclose(gray.encode(images[::-1])[::-1], z, atol=1e-5)
    np.testing.assert_array_equal(gray.encode(np.asfortranarray(images)), z)
    images.flags.writeable = False
    np.testing.assert_array_equal(gray.encode(images), z)
    none = rings(3, 12)[:0]
    assert gray.encode(none).shape == (0, 4)
    assert gray.reconstruct(none).shape == none.shape
    assert gray.log_likelihood(none, samples=2).shape == (0,)


def test_invalid_arguments_are_refused(gray: TrainedModel) -> None:
    refused(r"takes images \[N, 12, 12, 1\], not \[5, 13, 13, 1\]", gray.encode, rings(5, 13))
    refused(r"\[N, 4\]", gray.decode, np.zeros((2, 5), np.float32))
    refused("has no classes", gray.sample, 2, label="cat")
    refused(r"-1", gray.encode, rings(5, 12) / 127.5 - 1)
    refused("must be a whole number from 0", gray.sample, -1)
    refused("between 0 and 100", gray.sample, 1, temperature=float("nan"))


def test_python_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    vaekit.train(rings(30, 12), out=tmp_path / "run", threads=1, **TINY).sample(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_conditional_model_takes_classes_by_name_and_number(classes: TrainedModel) -> None:
    np.testing.assert_array_equal(classes.sample(4, label="1"), classes.sample(4, label=1))
    assert not np.array_equal(classes.sample(4, label="1"), classes.sample(4, label="2"))
    mixed = classes.sample(6)
    assert classes.sample_labels(6) == ["0", "1", "2", "0", "1", "2"]
    np.testing.assert_array_equal(mixed[1], classes.sample(6, label=1)[1])
    z = classes.encode(rings(3, 12, 3), [0, "1", 2])
    np.testing.assert_array_equal(z[1:2], classes.encode(rings(3, 12, 3), 1)[1:2])
    refused("needs the class of every image", classes.encode, rings(3, 12, 3))
    refused("needs the class of every image", classes.decode, z)
    refused("2 labels were given for 3 images", classes.encode, rings(3, 12, 3), [0, 1])


def test_saved_and_loaded_it_computes_the_same(gray: TrainedModel, tmp_path: Path) -> None:
    gray.save(tmp_path / "copy")
    repeated = vaekit.load(tmp_path / "copy")
    np.testing.assert_array_equal(repeated.sample(5, seed=1), gray.sample(5, seed=1))
    assert repeated.history.equals(gray.history)
    refused("Choose a new folder", gray.save, tmp_path / "copy")


def test_invalid_images_and_modules_are_refused_before_training(tmp_path: Path) -> None:
    refused(r"-1", vaekit.train, rings(30, 12) / 127.5 - 1, out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()
    with user_error(r"encoder 'Flatten' is not a torch module\. Give an instance"):
        vaekit.train(rings(60, 12), encoder=torch.nn.Flatten)


def test_an_interrupt_saves_and_raises(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "run" / "metrics.csv").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        vaekit.train(rings(30, 12), out=tmp_path / "run", **TINY | {"epochs": 100_000})
    stopped = max((tmp_path / "run" / "checkpoints").glob("step_*")).name
    endless = TINY | {"epochs": 100_000}
    resumed = vaekit.train(rings(30, 12), out=tmp_path / "run", resume=True, max_minutes=1e-6, **endless)
    assert max((tmp_path / "run" / "checkpoints").glob("step_*")).name > stopped
    assert len(resumed.history) >= 1


def test_early_stopping_counts_from_the_end_of_the_warmup(tmp_path: Path) -> None:
    """A learning rate that changes nothing never improves; without warm-up it stops after the patience."""
    still = TINY | {"epochs": 30, "learning_rate": 1e-12, "patience": 3, "ema": 0}
    plain = vaekit.train(rings(30, 12), out=tmp_path / "plain", **still)
    forked_command = vaekit.train(rings(30, 12), out=tmp_path / "warm", objective={"warmup": 10}, **still)
    assert len(plain.history) <= 8
    assert len(forked_command.history) == 13


def test_the_weights_to_use_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    """Of noise there is nothing to learn but the training images: validation gets worse and worse."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 1), np.uint8)
    dense = {"encoder": "mlp", "decoder": "mlp", "learning_rate": 3e-3, "ema": 0}
    settings = TINY | dense | {"epochs": 40}
    trained = vaekit.train(noise, out=tmp_path / "run", **settings)
    best = int(trained.history["val_loss"].idxmin()) + 1
    repeated = vaekit.train(noise, out=tmp_path / "short", **settings | {"epochs": best})
    np.testing.assert_array_equal(trained.sample(4), repeated.sample(4))
    assert best < 40
    steps = {int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert trained.history["step"][best - 1] in steps


@pytest.mark.parametrize("optimizer", get_args(TrainingConfig.model_fields["optimizer"].annotation))
def test_every_optimizer_lowers_the_loss_and_resumes(optimizer: str, tmp_path: Path) -> None:
    rate = 1e-3 if optimizer == "sgd" else 1e-2
    settings = TINY | {"epochs": 6, "learning_rate": rate, "schedule": "cosine", "ramp": 3, "clip": 1e4}
    settings |= {"ema": 0.5}
    settings["optimizer"] = optimizer
    unbroken = vaekit.train(rings(60, 12), out=tmp_path / "run", **settings)
    assert unbroken.history["train_loss"].iloc[-1] < 0.95 * unbroken.history["train_loss"].iloc[0]
    vaekit.train(rings(60, 12), out=tmp_path / "parts", max_minutes=0.0, **settings)
    parts = vaekit.train(rings(60, 12), out=tmp_path / "parts", resume=True, **settings)
    np.testing.assert_array_equal(parts.sample(4), unbroken.sample(4))
    assert list(parts.history["train_loss"]) == list(unbroken.history["train_loss"])


def test_resume_never_replaces_a_trained_model(gray: TrainedModel, tmp_path: Path) -> None:
    gray.save(tmp_path / "copy")
    before = (tmp_path / "copy" / "model.safetensors").read_bytes()
    with user_error("no intact checkpoint"):
        vaekit.train(rings(60, 12)[..., 0], out=tmp_path / "copy", resume=True, **TINY | {"epochs": 3})
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == before
    assert len(vaekit.load(tmp_path / "copy").history) == 2


def test_a_conditional_model_draws_the_given_class(tmp_path: Path) -> None:
    """Rings before a bright band whose place is the class."""
    labels = np.arange(400) % 4
    images = rings(400, 16) // 2
    for band in range(4):
        images[labels == band, 4 * band : 4 * band + 4] += 100
    settings = TINY | {"epochs": 8, "latents": 16}
    trained = vaekit.train((images, labels), out=tmp_path / "run", conditional=True, **settings)
    for band in range(4):
        drawn = trained.sample(50, label=band).reshape(50, 4, -1).mean(2).argmax(1)
        assert (drawn == band).mean() > 0.9


STILL = TINY | {"encoder": "mlp", "decoder": "mlp", "learning_rate": 1e-12, "ema": 0.0}
"""Nothing moves: what was there at the start can be looked at."""


def test_dense_networks_start_at_the_mean_image(tmp_path: Path) -> None:
    images = rings(60, 12)
    tanh = {"kind": "mlp", "hidden": [16], "activation": "tanh"}
    settings = STILL | {"encoder": tanh, "decoder": tanh, "validation": "last:10", "batch_size": 50}
    model = vaekit.train(images, out=tmp_path, **settings)
    mean = images[:50].mean(0)
    assert np.abs(model.decode(np.zeros((1, model.model.latents)))[0] - mean).max() <= 1
    read = model.model.encoder.mean.permute(1, 2, 0) * 255
    np.testing.assert_allclose(read, mean, atol=1e-3)


def test_pseudo_inputs_start_as_training_images_with_labels(tmp_path: Path) -> None:
    images, labels = rings(60, 12), np.arange(60) % 3
    vamp = {"prior": {"kind": "vamp", "components": 20}, "conditional": True}
    model = vaekit.train((images, labels), out=tmp_path / "still", **STILL, **vamp)
    prior = model.model.prior
    started = (prior.pseudo_inputs.detach().permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert [known[image.tobytes()] for image in started] == prior.labels.tolist()
    assert len({image.tobytes() for image in started}) == 20

    vaekit.train((images, labels), out=tmp_path / "moving", **STILL | {"learning_rate": 1e-2}, **vamp)
    learned = vaekit.load(tmp_path / "moving").model.prior.pseudo_inputs
    assert not torch.allclose(learned, prior.pseudo_inputs, atol=1e-3)


def test_pseudo_inputs_are_all_different(tmp_path: Path) -> None:
    model = vaekit.train(
        rings(20, 12), out=tmp_path / "few", **STILL, prior={"kind": "vamp", "components": 50}
    )
    started = model.model.prior.pseudo_inputs.detach().flatten(1)
    assert len(started.unique(dim=0)) == 50
    assert ((started > -1e-6) & (started < 1 + 1e-6)).all()
    labelled = rings(40, 12), (np.arange(40) < 4).astype(int)
    prior = {"kind": "vamp", "components": 30}
    model = vaekit.train(
        labelled, out=tmp_path / "balanced", **STILL | {"balance": True, "batch_size": 12}, prior=prior
    )
    assert len(model.model.prior.pseudo_inputs.flatten(1).unique(dim=0)) == 30


@pytest.mark.parametrize("samples", [0, 10**8])
def test_samples_are_a_whole_number(gray: TrainedModel, samples: int) -> None:
    refused("`samples`: must be a whole number from 1 to", gray.log_likelihood, rings(3, 12), samples=samples)
    refused("`samples`: must be a whole number from 1 to", gray.evaluate, rings(3, 12), samples=samples)
    assert gray.evaluate(rings(3, 12), samples=np.int64(2), quiet=True)["samples"] == 2


def test_a_mismatched_module_is_named_by_its_first_tensor(tmp_path: Path) -> None:
    encoder_of = lambda width: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, width))  # noqa: E731
    vaekit.train(rings(60, 12), out=tmp_path, **TINY | {"encoder": encoder_of(8)})
    with user_error(r"\(encoder.module.1.weight is \[8, 144\], not \[9, 144\]\)"):
        vaekit.load(tmp_path, encoder=encoder_of(9))


def test_a_white_border_is_shown_white(tmp_path: Path) -> None:
    """Drawings on white, in colour: the noise of the likelihood leaves no veil on what is shown."""
    drawings = 255 - rings(120, 16, 3)
    drawings[:, [0, -1]] = drawings[:, :, [0, -1]] = 255
    dense = {"encoder": "mlp", "decoder": "mlp", "learning_rate": 1e-3}
    trained = vaekit.train(drawings, out=tmp_path, **TINY | dense | {"preset": "best", "epochs": 30})
    px = trained.model.decode(torch.zeros(1, 4))
    assert px.mean[0, :, 0].max() < 252 / 255
    for shown in (trained.sample(8), trained.reconstruct(drawings[:8])):
        assert np.concatenate([shown[:, 0].ravel(), shown[:, :, -1].ravel()]).min() >= 254


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_images_of_any_number_of_bands_train(likelihood: str) -> None:
    images = np.concatenate([rings(40, 12, 3), 255 - rings(40, 12, 3)[..., :2]], axis=-1)
    model = vaekit.train(images, **TINY | {"likelihood": likelihood})
    assert model.sample(3).shape == (3, 12, 12, 5)
    errors = np.abs(model.reconstruct(images).astype(int) - images).mean((0, 1, 2))
    assert (errors < 128).all() and np.isfinite(model.log_likelihood(images[:4], samples=2)).all()


def in_threads(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_get_the_results_of_single_calls(gray: TrainedModel) -> None:
    images = rings(60, 12)
    alone = gray.log_likelihood(images, samples=20, seed=1), gray.sample(70, seed=2)
    likelihoods, samples = [], []
    calls = [lambda: likelihoods.append(gray.log_likelihood(images, samples=20, seed=1))] * 3
    in_threads(*calls, *[lambda: samples.append(gray.sample(70, seed=2))] * 3)
    assert len(likelihoods) == len(samples) == 3
    for one in likelihoods:
        np.testing.assert_array_equal(one, alone[0])
    for one in samples:
        np.testing.assert_array_equal(one, alone[1])


def test_trainings_in_threads_are_those_of_single_calls(gray: TrainedModel, tmp_path: Path) -> None:
    settings = TINY | {"epochs": 4}
    images = {"a": rings(60, 12), "b": rings(60, 12, seed=9)}
    alone = {name: vaekit.train(x, out=tmp_path / name, **settings) for name, x in images.items()}
    ended = threading.Event()

    def train(name: str) -> None:
        vaekit.train(images[name], out=tmp_path / f"{name}2", **settings)

    def sample() -> None:
        while not ended.wait(0.001):
            gray.sample(8)

    sampler = threading.Thread(target=sample)
    sampler.start()
    in_threads(lambda: train("a"), lambda: train("b"))
    ended.set()
    sampler.join()
    for name, x in images.items():
        np.testing.assert_array_equal(vaekit.load(tmp_path / f"{name}2").encode(x), alone[name].encode(x))
        assert (tmp_path / f"{name}2" / "log.txt").read_text().count("epoch 1/4") == 1
