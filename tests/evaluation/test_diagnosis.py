"""Models with one fault each, whose diagnosis is that fault, and healthy ones without findings.

A model of every family of faults is trained here. The others are diagnosed from what was recorded of them in
`recorded/`; they are trained as well by the tests marked slow. To record them all again:

    python tests/evaluation/test_diagnosis.py
"""

import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from pytest import MonkeyPatch

import vaekit
from command import rings
from vaekit import TrainedModel
from vaekit.config.config import Config
from vaekit.config.overrides import load_config, resolve
from vaekit.config.presets import PRESETS
from vaekit.evaluation.diagnosis import diagnose
from vaekit.evaluation.diagnosis_input import DiagnosisInput
from vaekit.evaluation.evaluate import diagnose_run
from vaekit.evaluation.results import EvaluationResult, Finding
from vaekit.latents import densities
from vaekit.models.builder import build
from vaekit.models.compatibility import is_valid
from vaekit.runs.commands import first_valid, resume_command, train_command
from vaekit.runs.folder import Run
from vaekit.runs.metadata import DatasetSummary, RunMetadata

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


def video() -> np.ndarray:
    """Every image stands for five video frames that differ by a level here and there."""
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
        np.clip(
            random.uniform(1.5, 4, (2600, 1)) - abs(np.arange(12) - random.uniform(3, 8, (2600, 1))), 0, 1
        )
        for _ in range(2)
    )
    return (light * row[:, :, None] * column[:, None])[..., None].astype(np.uint8)


SIGMA = {"kind": "gaussian", "sigma": "learned"}
FAULTY: dict[str, tuple[Callable[[], np.ndarray], dict[str, Any], str, set[str]]] = {
    # images, settings, the fault, and what may come with it
    "beta far above 1": (many, {"objective": {"beta": 100.0}}, "posterior collapse", set()),
    "no signal among noise": (
        lambda: np.random.default_rng(0).integers(100, 156, (2600, 12, 12, 1)).astype(np.uint8),
        {"likelihood": SIGMA, "epochs": 15},
        "posterior collapse",
        {"overfitting"},
    ),
    "steps far too large": (
        many,
        {"learning_rate": 0.1, "optimizer": "adam"},
        "learning rate too high",
        {"*"},
    ),
    "large steps in colour": (
        colour,
        {"likelihood": SIGMA, "learning_rate": 0.2, "epochs": 25},
        "learning rate too high",
        {"*"},
    ),
    "two epochs": (many, {"epochs": 2}, "too few epochs", {"unused latents"}),
    "small steps": (many, {"learning_rate": 2e-5, "epochs": 15}, "too few epochs", {"unused latents"}),
    "sixty images": (few, {"epochs": 400}, "too little data", {"overfitting", "unused latents"}),
    "memorized noise": (
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
    "hardly any KL": (
        many,
        {"objective": {"beta": 0.01}},
        "prior mismatch",
        {"overfitting", "too few epochs"},
    ),
    "an autoencoder": (
        many,
        {"posterior": "delta", "objective": {"kind": "l2", "weight": 0.0}},
        "prior mismatch",
        {"*"},
    ),
    "video frames": (video, {}, "duplicates across the split", {"too few epochs"}),
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
def quick(monkeypatch: MonkeyPatch) -> None:
    """A fitted mixture is enough here; a flow takes longest. Shapes are checked by other tests: that is a
    third of the time of these many steps."""
    monkeypatch.setattr(densities, "FLOW_STEPS", 100)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


FAMILIES: dict[str, set[str]] = {
    # a model that is trained on every run of the tests, and the faults that it stands for
    "two epochs": {"too few epochs", "learning rate too high"},
    "beta far above 1": {"posterior collapse", "unused latents"},
    "sixty images": {"too little data", "overfitting", "duplicates across the split"},
    "noise fixed at a half": {"noise level too high", "underfitting"},
    "hardly any KL": {"prior mismatch"},
}
TRAINED = {*FAMILIES, "rings"}
RECORDED = Path(__file__).parent / "recorded"


def cases(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in TRAINED else pytest.mark.slow) for name in names]


def train(
    folder: Path, images: np.ndarray, settings: dict[str, Any]
) -> tuple[TrainedModel, EvaluationResult]:
    np.savez(folder / "images.npz", x=images)
    settings = MLP | {"report": False} | settings
    model = vaekit.train(folder / "images.npz", preset="classic", out=folder / "run", **settings)
    return model, EvaluationResult.model_validate(model.evaluate(samples=5, quiet=True))


def record(name: str, folder: Path) -> None:
    """Train a model, and write what its diagnosis is made from."""
    make, settings, *_ = (FAULTY | HEALTHY)[name]
    model, result = train(folder, make(), settings)
    run = model.run
    evaluation = result.model_dump(mode="json") | {"diagnosis": [], "data": "images.npz"}
    if evaluation["memorization"]:
        evaluation["memorization"]["duplicate_files"] = evaluation["memorization"]["duplicate_files"][:1]
    content = {
        "config": json.loads(run.config.read_text()) | {"source": "images.npz"},
        "dataset": json.loads(run.dataset.read_text()) | {"source": "images.npz"},
        "training_images": json.loads(run.dataset.read_text())["splits"]["train"],
        "metrics": model.history[["epoch", "step", "train_loss", "val_loss"]]
        .to_csv(index=False)
        .splitlines(),
        "evaluation": evaluation,
    }
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{name.replace(' ', '_')}.json").write_text(json.dumps(content, indent=1) + "\n")


def diagnose_recorded(name: str, folder: Path) -> list[Finding]:
    content = json.loads((RECORDED / f"{name.replace(' ', '_')}.json").read_text())
    run = Run(folder)
    run.config.write_text(json.dumps(content["config"]))
    run.dataset.write_text(json.dumps(content["dataset"]))
    run.metrics.write_text("\n".join(content["metrics"]) + "\n")
    config = load_config(content["config"])
    _, objective = build(config, tuple(content["config"]["shape"]))
    result = EvaluationResult.model_validate(content["evaluation"])
    return diagnose_run(run, config, objective.schedule_end, result, content["training_images"])


def check_fault(name: str, findings: list[Finding]) -> None:
    _, _, fault, others = FAULTY[name]
    names = {finding.name for finding in findings}
    assert fault in names, findings
    assert "*" in others or names <= {fault, *others}, findings
    for finding in findings:
        assert_possible(finding.fix)


@pytest.mark.parametrize("name", cases(FAULTY))
def test_fault_of_a_trained_model_is_found(name: str, tmp_path: Path) -> None:
    make, settings, *_ = FAULTY[name]
    _, result = train(tmp_path, make(), settings)
    check_fault(name, result.diagnosis)


@pytest.mark.parametrize("name", cases(HEALTHY))
def test_trained_healthy_model_has_no_findings(name: str, tmp_path: Path) -> None:
    make, settings = HEALTHY[name]
    _, result = train(tmp_path, make(), settings)
    assert result.diagnosis == []


@pytest.mark.parametrize("name", FAULTY)
def test_recorded_fault_is_found(name: str, tmp_path: Path) -> None:
    check_fault(name, diagnose_recorded(name, tmp_path))


@pytest.mark.parametrize("name", HEALTHY)
def test_recorded_healthy_model_has_no_findings(name: str, tmp_path: Path) -> None:
    assert diagnose_recorded(name, tmp_path) == []


def test_families_cover_every_fault() -> None:
    assert set.union(*FAMILIES.values()) == {fault for _, _, fault, _ in FAULTY.values()}
    assert all(FAULTY[name][2] in faults for name, faults in FAMILIES.items())


RECONSTRUCTION: dict[str, Any] = {
    "images": 500,
    "mse": 0.01,
    "mse_standard_error": 0.001,
    "psnr": 20.0,
    "psnr_standard_error": 0.1,
    "ssim": None,
    "ssim_standard_error": None,
    "explained_variance": 0.9,
}
HEALTHY_RESULT: dict[str, Any] = {
    "weights_hash": "",
    "data": "photos",
    "split": "validation",
    "same_dataset": True,
    "images": 500,
    "samples": 100,
    "seed": 0,
    "likelihood": {
        "kind": "probability",
        "nll": 90.0,
        "nll_standard_error": 1.0,
        "bits_per_dimension": None,
        "bounds": {100: -90.0},
        "elbo": -92.0,
        "reconstruction": 82.0,
        "kl": 10.0,
        "effective_sample_size": {"mean": 10.0, "median": 10.0, "min": 1.0},
    },
    "latents": {"total": 32, "active": 32, "kl": None},
    "reconstruction": RECONSTRUCTION,
    "training_reconstruction": RECONSTRUCTION,
    "prior_gap": None,
    "memorization": None,
    "fidelity": None,
    "unavailable": {},
}
COLLAPSED = {"total": 32, "active": 0, "kl": None}
HISTORY = [
    {"epoch": float(i), "train_loss": loss, "val_loss": loss}
    for i, loss in enumerate([150.0, *[100.0] * 9], 1)
]


def inputs_of(config: Config, result: dict[str, Any], retrain_command: Callable[..., str]) -> DiagnosisInput:
    return DiagnosisInput(
        config=config,
        result=EvaluationResult.model_validate(HEALTHY_RESULT | result),
        history=HISTORY,
        loss_drop=50.0,
        steps=5000,
        training_images=5000,
        run="runs/one",
        retrain_command=retrain_command,
        resume_command=lambda epochs: resume_command(*records(config), Path("runs/one"), epochs),
    )


def records(
    config: Config, preset: str = "classic", path: str | None = "photos", source: str = "photos"
) -> tuple[RunMetadata, DatasetSummary]:
    metadata = RunMetadata(
        preset=preset,
        config=config,
        shape=(1, 8, 8),
        classes=(),
        source=path,
        seed=0,
        device="cpu",
        versions={},
        threads=1,
    )
    splits = {"train": 90, "validation": 10, "test": 0}
    return metadata, DatasetSummary(
        fingerprint="", source=source, images=100, width=8, height=8, channels=1, splits=splits, skipped=[]
    )


@pytest.mark.parametrize("more", [{}, {"flip": True, "crop": 4, "patience": 20, "objective": {"beta": 4.0}}])
@pytest.mark.parametrize("preset", PRESETS)
def test_fix_is_valid_and_changes_something(preset: str, more: dict[str, Any]) -> None:
    """Whatever is found for whatever preset, its components are compatible, and some setting changes."""
    elbo = resolve(preset=preset).objective.kind == "elbo"
    config = resolve(more if elbo else {k: v for k, v in more.items() if k != "objective"}, preset=preset)
    metadata, dataset = records(config, preset)

    def retrain_command(*choices: dict[str, Any]) -> str:
        return train_command(metadata, dataset, first_valid(config, choices, 5000))

    findings: dict[str, dict[str, Any]] = {
        "posterior collapse": {"latents": COLLAPSED},
        "underfitting": {"training_reconstruction": RECONSTRUCTION | {"explained_variance": 0.1}},
        "prior mismatch": {
            "prior_gap": {
                "fitted_prior": "a mixture",
                "gain": 9.0,
                "gain_standard_error": 0.1,
                "mutual_information_bound": 1.0,
            }
        },
        "overfitting": {
            "training_reconstruction": RECONSTRUCTION | {"mse": 0.001, "explained_variance": 0.99}
        },
        "unused latents": {"latents": {"total": 32, "active": 10, "kl": None}},
        "duplicates across the split": {
            "memorization": {
                "images": 100,
                "nearest_to_new": 9.0,
                "nearest_to_held_out": 9.0,
                "copied": 0.0,
                "copied_by_chance": 0.1,
                "duplicates": 0.5,
                "duplicate_files": [("a/1.png", "a/2.png")],
            }
        },
    }
    for fault, result in findings.items():
        (one,) = diagnose(inputs_of(config, result, retrain_command))
        assert one.name == fault
        assert assert_possible(one.fix) != config, one


def test_undertrained_model_is_told_to_resume() -> None:
    """What is not learned after 18 steps is no collapse; the fix is more steps."""
    falling = [{"epoch": float(i), "train_loss": 150.0 - i, "val_loss": 150.0 - i} for i in (1, 2)]
    settings = resolve({"epochs": 2})
    undertrained = replace(
        inputs_of(settings, {"latents": COLLAPSED}, lambda *_: ""), history=falling, loss_drop=1.0, steps=18
    )
    (one,) = diagnose(undertrained)
    assert one.name == "too few epochs" and one.fix == "vaekit train --resume --out runs/one --epochs 112"
    assert [one.name for one in diagnose(replace(undertrained, steps=5000))] == ["posterior collapse"]


def test_small_fluctuations_are_no_fault() -> None:
    """After a warm-up there is little left to fall; fluctuations then are no sign of a learning rate too
    high."""
    wavering = [100.0 + 0.3 * (-1) ** i for i in range(10)]
    tail = [{"epoch": float(i), "train_loss": loss, "val_loss": loss} for i, loss in enumerate(wavering)]
    well = replace(inputs_of(Config(), {}, lambda *_: ""), history=tail)
    assert diagnose(well) == []
    rough = [row | {"train_loss": row["train_loss"] + 9 * (row["epoch"] == 5)} for row in tail]
    assert [one.name for one in diagnose(replace(well, history=rough))] == ["learning rate too high"]


def test_commands_in_python_where_flags_cannot_express_them() -> None:
    custom = resolve({"encoder": {"kind": "own", "name": "Sequential"}, "objective": {"beta": 0.123456789}})
    assert train_command(*records(custom, path="my photos")) == (
        "vaekit.train('my photos', encoder=encoder, preset='classic', objective={'beta': 0.123456789})"
    )
    plain = resolve(
        {"encoder": {"kind": "resnet", "attention": False}, "learning_rate": 0.00123456789, "flip": True}
    )
    in_memory = records(plain, path=None, source="an ndarray in memory")
    assert resume_command(*in_memory, Path("runs/a"), 9) == (
        "vaekit.train(data, out='runs/a', resume=True, epochs=9)"
    )
    sample = records(plain, path=None, source="the bundled sample")
    bundled = train_command(*sample)
    assert "--learning-rate 0.00123456789" in bundled and assert_possible(bundled) == plain
    assert resume_command(*sample, Path("my run"), 9) == ("vaekit train --resume --out 'my run' --epochs 9")


def assert_possible(command: str) -> Config:
    """The flags of a command are settings that go with each other; returns them."""
    verb, train, *words = shlex.split(command)
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


if __name__ == "__main__":
    densities.FLOW_STEPS = 100
    for one in sys.argv[1:] or FAULTY | HEALTHY:
        with tempfile.TemporaryDirectory() as scratch:
            record(one, Path(scratch))
