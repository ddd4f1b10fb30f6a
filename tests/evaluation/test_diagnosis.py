"""Models with one illness each, and healthy ones: what is found of each is its illness, and of the healthy nothing."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

import vaekit
from command import rings
from vaekit.config.config import Config
from vaekit.config.overrides import resolve
from vaekit.config.presets import PRESETS
from vaekit.evaluation.diagnosis import DiagnosisInput, diagnose
from vaekit.latents import densities
from vaekit.models.compatibility import is_valid
from vaekit.runs.commands import first_valid, resume_command_for, train_command

MLP: dict[str, Any] = {
    "encoder": {"kind": "mlp", "hidden": "128"},
    "decoder": {"kind": "mlp", "hidden": "128"},
    "latents": 6,
    "epochs": 40,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "ema": 0.98,
    "threads": 1,
    "quiet": True,
}


def many(seed: int = 0) -> np.ndarray:
    return rings(2600, 12, seed=seed)


def few() -> np.ndarray:
    return rings(60, 12)


def film() -> np.ndarray:
    """A film: every image stands for five frames that differ by a level here and there."""
    return (
        (rings(520, 12).repeat(5, 0) + np.random.default_rng(0).integers(0, 2, (2600, 1, 1, 1)))
        .clip(0, 255)
        .astype("u1")
    )


def noisy() -> np.ndarray:
    """Rings under noise of its own for every pixel, which no model can know."""
    return (0.5 * many() + 60 * np.random.default_rng(0).random((2600, 12, 12, 1))).astype(np.uint8)


def colour() -> np.ndarray:
    return rings(2600, 12, 3)


def boxes() -> np.ndarray:
    """Bright rectangles anywhere: five numbers make an image."""
    random = np.random.default_rng(0)
    light = random.uniform(120, 250, (2600, 1, 1))
    row, column = (
        np.clip(random.uniform(1.5, 4, (2600, 1)) - abs(np.arange(12) - random.uniform(3, 8, (2600, 1))), 0, 1)
        for _ in range(2)
    )
    return (light * row[:, :, None] * column[:, None])[..., None].astype(np.uint8)


SIGMA = {"kind": "gaussian", "sigma": "learned"}
ILL: dict[str, tuple[Callable[[], np.ndarray], dict[str, Any], str, set[str]]] = {
    # images, settings, the illness, and what may come with it
    "beta far above 1": (many, {"objective": {"beta": 100.0}}, "posterior collapse", set()),
    "no signal among noise": (
        lambda: np.random.default_rng(0).integers(100, 156, (2600, 12, 12, 1)).astype(np.uint8),
        {"likelihood": SIGMA, "epochs": 15},
        "posterior collapse",
        {"overfitting"},
    ),
    "steps far too large": (many, {"learning_rate": 0.1, "optimizer": "adam"}, "learning rate too high", {"*"}),
    "large steps in colour": (
        colour,
        {"likelihood": SIGMA, "learning_rate": 0.2, "epochs": 25},
        "learning rate too high",
        {"*"},
    ),
    "two epochs": (many, {"epochs": 2}, "too few epochs", {"unused latents"}),
    "small steps": (many, {"learning_rate": 2e-5, "epochs": 15}, "too few epochs", {"unused latents"}),
    "sixty images": (few, {"epochs": 400}, "too little data", {"overfitting", "unused latents"}),
    "learned by heart": (
        noisy,
        {
            "likelihood": SIGMA,
            "latents": 64,
            "encoder": {"kind": "mlp", "hidden": "512"},
            "decoder": {"kind": "mlp", "hidden": "512"},
            "epochs": 40,
            "objective": {"beta": 0.02},
        },
        "overfitting",
        {"prior mismatch", "unused latents"},
    ),
    "one latent for six numbers": (colour, {"latents": 1, "epochs": 90}, "underfitting", set()),
    "noise fixed at a half": (
        many,
        {"likelihood": {"kind": "gaussian", "sigma": "fixed", "scale": 0.5}},
        "noise level too high",
        {"underfitting", "posterior collapse", "unused latents", "too few epochs"},
    ),
    "hardly any KL": (many, {"objective": {"beta": 0.01}}, "prior mismatch", {"overfitting", "too few epochs"}),
    "an autoencoder": (
        many,
        {"posterior": "delta", "objective": {"kind": "l2", "weight": 0.0}},
        "prior mismatch",
        {"*"},
    ),
    "a film": (film, {}, "duplicates across the split", {"too few epochs"}),
    "sixty latents for three numbers": (
        many,
        {"latents": 60, "objective": {"beta": 2.0}},
        "unused latents",
        {"too few epochs"},
    ),
}
HEALTHY: dict[str, tuple[Callable[[], np.ndarray], dict[str, Any]]] = {
    "rings": (many, {}),
    "other rings": (lambda: many(7), {"latents": 5}),
    "colours, noise learned": (colour, {"likelihood": SIGMA, "objective": {"beta": 1.0}, "prior": "flow"}),
    "a learned prior": (many, {"prior": "mixture"}),
    "a flow posterior": (many, {"posterior": "iaf"}),
    "importance weights": (many, {"objective": {"kind": "iwae", "samples": 5}}),
    "boxes": (boxes, {"latents": 4, "epochs": 60}),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixtures find what there is to be found here; the flow beside them takes longest. Shapes are checked elsewhere:
    that is a third of the time of these many steps."""
    monkeypatch.setattr(densities, "FLOW_STEPS", 100)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def judged(tmp_path: Path, images: np.ndarray, settings: dict[str, Any]) -> list[dict[str, str]]:
    np.savez(tmp_path / "images.npz", x=images)
    model = vaekit.train(tmp_path / "images.npz", preset="classic", out=tmp_path / "run", **MLP | settings)
    return list(model.evaluate(samples=5, quiet=True)["diagnosis"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ILL)
def test_an_illness_is_found_and_no_other(name: str, tmp_path: Path) -> None:
    make, settings, illness, beside = ILL[name]
    found = judged(tmp_path, make(), settings)
    names = {one["name"] for one in found}
    assert illness in names, found
    assert "*" in beside or names <= {illness, *beside}, found
    for one in found:
        assert_possible(one["remedy"])


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_of_the_healthy(name: str, tmp_path: Path) -> None:
    make, settings = HEALTHY[name]
    assert judged(tmp_path, make(), settings) == []


MEAN = {"mse": 0.01, "explained": 0.9}
WELL: dict[str, Any] = {
    **{
        "data": "photos",
        "side": "validation",
        "own": True,
        "latents": 32,
        "active_units": 32,
        "kl": 10.0,
        "aggregate": None,
    },
    **{"reconstructions": MEAN, "learned": MEAN, "memorisation": None},
}
LEARNED = [{"epoch": float(i), "train_loss": loss, "val_loss": loss} for i, loss in enumerate([150.0, *[100.0] * 9], 1)]


def measured(config: Config, found: dict[str, Any], again: Callable[..., str]) -> DiagnosisInput:
    go_on = partial(resume_command_for, config, {"source": "photos"}, {"source": "photos"}, "runs/one")
    return DiagnosisInput(config, WELL | found, LEARNED, 50.0, 5000, 5000, "runs/one", again, go_on)


@pytest.mark.parametrize("more", [{}, {"flip": True, "crop": 4, "patience": 20, "objective": {"beta": 4.0}}])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_remedy_is_possible_and_changes_something(preset: str, more: dict[str, Any]) -> None:
    """Whatever is found of whatever preset: its parts go together, and they are not what they were."""
    elbo = resolve(preset=preset).objective.kind == "elbo"
    config = resolve(more if elbo else {k: v for k, v in more.items() if k != "objective"}, preset=preset)
    record = {"config": config.model_dump(), "preset": preset, "source": "photos"}

    def again(*choices: dict[str, Any]) -> str:
        return train_command(record, {"source": "photos"}, first_valid(config, choices, 5000))

    ill: dict[str, dict[str, Any]] = {
        "posterior collapse": {"active_units": 0},
        "underfitting": {"learned": MEAN | {"explained": 0.1}},
        "prior mismatch": {"aggregate": {"gain": 9.0, "mutual_information_at_most": 1.0}},
        "overfitting": {"learned": {"mse": 0.001, "explained": 0.99}},
        "unused latents": {"active_units": 10},
        "duplicates across the split": {
            "memorisation": {"duplicates": 0.5, "duplicate_files": [["a/1.png", "a/2.png"]]}
        },
    }
    for illness, found in ill.items():
        (one,) = diagnose(measured(config, found, again))
        assert one["name"] == illness
        assert assert_possible(one["remedy"]) != config, one


def test_a_model_that_has_only_begun_is_told_to_go_on() -> None:
    """Two epochs of nine steps: what is not learned yet is no collapse, and the remedy is steps enough."""
    falling = [{"epoch": float(i), "train_loss": 150.0 - i, "val_loss": 150.0 - i} for i in (1, 2)]
    settings = resolve({"epochs": 2})
    undertrained = replace(
        measured(settings, {"active_units": 0}, lambda *_: ""), history=falling, loss_drop=1.0, steps=18
    )
    (one,) = diagnose(undertrained)
    assert one["name"] == "too few epochs" and one["remedy"] == "vaekit train --resume --out runs/one --epochs 112"
    assert [one["name"] for one in diagnose(replace(undertrained, steps=5000))] == ["posterior collapse"]


def test_noise_of_a_long_tail_is_no_illness() -> None:
    """After a warm-up there is little left to fall; that the loss then wavers says nothing of the learning rate."""
    wavering = [100.0 + 0.3 * (-1) ** i for i in range(10)]
    tail = [{"epoch": float(i), "train_loss": loss, "val_loss": loss} for i, loss in enumerate(wavering)]
    well = replace(measured(Config(), {}, lambda *_: ""), history=tail)
    assert diagnose(well) == []
    rough = [row | {"train_loss": row["train_loss"] + 9 * (row["epoch"] == 5)} for row in tail]
    assert [one["name"] for one in diagnose(replace(well, history=rough))] == ["learning rate too high"]


def test_what_python_alone_can_give_is_said_in_python() -> None:
    own = resolve({"encoder": {"kind": "own", "name": "Sequential"}, "objective": {"beta": 0.123456789}})
    record = {"config": own.model_dump(), "preset": "classic", "source": "my photos"}
    assert train_command(record, {"source": "my photos"}) == (
        "vaekit.train('my photos', encoder=encoder, preset='classic', objective={'beta': 0.123456789})"
    )
    plain = resolve({"encoder": {"kind": "resnet", "attention": False}, "learning_rate": 0.00123456789, "flip": True})
    record = {"config": plain.model_dump(), "preset": "classic", "source": None}
    assert resume_command_for(plain, record, {"source": "an ndarray in memory"}, "runs/a", 9) == (
        "vaekit.train(data, out='runs/a', resume=True, epochs=9)"
    )
    bundled = train_command(record, {"source": "the bundled sample"})
    assert "--learning-rate 0.00123456789" in bundled and assert_possible(bundled) == plain
    assert resume_command_for(plain, record, {"source": "the bundled sample"}, "my run", 9) == (
        "vaekit train --resume --out 'my run' --epochs 9"
    )


def assert_possible(remedy: str) -> Config:
    """The flags of a command are settings that go with each other; returns them."""
    verb, train, *words = shlex.split(remedy)
    assert (verb, train) == ("vaekit", "train")
    flags: dict[str, Any] = {}
    preset = "classic"
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if word in ("--resume", "--out") or not word.startswith("--"):
            continue
        if word == "--preset":
            preset = value
        else:
            *slots, name = word.removeprefix("--").split(".")
            here = flags.setdefault(slots[0], {}) if slots else flags
            no = name.startswith("no-")
            flag = not no if value.startswith("--") or not value else value
            here[name.removeprefix("no-").replace("-", "_")] = flag
    config = resolve(flags, preset=preset)
    assert is_valid(config)
    return config
