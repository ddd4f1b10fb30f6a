"""Every preset, from images to new images: trained, interrupted, resumed, saved, loaded."""

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import vaekit
from command import rings
from vaekit.config.overrides import resolve
from vaekit.config.presets import PRESETS, leaves_noise_open
from vaekit.training.plan import make_plan
from vaekit.training.request import TrainRequest

SMALL = {"latents": 4, "batch_size": 16, "quiet": True, "seed": 3, "threads": 1}
IMAGES = (rings(48, 12), np.arange(48) % 3)


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_trains_and_resumes_exactly(preset: str, tmp_path: Path) -> None:
    settings = {"preset": preset, **SMALL}
    if "hidden" not in PRESETS[preset].settings.get("encoder", {}):
        settings |= {"encoder": {"channels": 8}, "decoder": {"channels": 8}}
    unbroken = vaekit.train(IMAGES, out=tmp_path / "whole", epochs=2, **settings)
    first = vaekit.train(IMAGES, out=tmp_path / "parts", epochs=2, max_minutes=0.0, **settings)
    assert len(first.history) == 1
    parts = vaekit.train(IMAGES, out=tmp_path / "parts", epochs=2, resume=True, **settings)
    one, two = (load_file(model.run.weights) for model in (unbroken, parts))
    assert all(np.array_equal(one[name], two[name]) for name in one)

    history = unbroken.history
    curves = [f"{split}_{name}" for split in ("train", "val") for name in ("loss", "reconstruction", "kl")]
    assert list(history.columns[:10]) == ["epoch", "step", "seconds", "images_per_second", *curves]
    assert all(math.isfinite(value) for value in (*history["train_loss"], *history["val_reconstruction"]))
    assert history["val_kl"].isna().all() == (preset in ("wae", "ae", "rae", "info-vae"))
    assert unbroken.run.loss_graph.stat().st_size > 10_000

    unbroken.save(tmp_path / "copy")
    copy = vaekit.load(tmp_path / "copy")
    np.testing.assert_array_equal(copy.sample(5, seed=1), unbroken.sample(5, seed=1))
    np.testing.assert_array_equal(copy.sample(70, seed=1)[:5], unbroken.sample(5, seed=1))
    labels = IMAGES[1][:4] if unbroken.model.classes else None
    assert unbroken.reconstruct(IMAGES[0][:4], labels).shape == (4, 12, 12, 1)


@pytest.mark.parametrize("preset", [name for name in PRESETS if leaves_noise_open(name)])
def test_presets_that_choose_no_likelihood_suit_colour_images(preset: str) -> None:
    """A prior, posterior or objective chosen by name keeps the networks and noise of the colour default."""
    images, labels = np.repeat(rings(60, 16), 3, axis=3), np.arange(60) % 3
    config = make_plan(TrainRequest((images, labels), preset=preset, quiet=True)).config
    assert (config.likelihood.kind, config.encoder.kind, str(config.latents)) == ("laplace", "dcae", "128")
    gray = make_plan(TrainRequest((images[..., :1], labels), preset=preset, quiet=True)).config
    assert (gray.likelihood.kind, gray.encoder.kind, str(gray.latents)) == ("bernoulli", "conv", "32")


def test_classic_is_the_same_for_colour_images() -> None:
    plan = make_plan(TrainRequest(np.repeat(rings(60, 16), 3, axis=3), preset="classic", quiet=True))
    assert plan.config == resolve(preset="classic")
