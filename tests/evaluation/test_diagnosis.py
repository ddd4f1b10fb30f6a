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
from vaekit.config.config import Config
from vaekit.config.overrides import resolve
from vaekit.config.presets import PRESETS
from vaekit.evaluation.diagnosis import DiagnosisInput, diagnose
from vaekit.evaluation.evaluate import diagnose_run
from vaekit.evaluation.results import EvaluationResult, Finding
from vaekit.latents import densities
from vaekit.models.builder import build
from vaekit.models.compatibility import is_valid
from vaekit.runs.commands import first_valid, resume_command, train_command
from vaekit.runs.folder import Run
from vaekit.runs.metadata import DatasetSummary, RunMetadata
from vaekit.runs.metrics import append_metrics
from vaekit.runs.unfinished import unfinished
from vaekit.training.artifacts import SamplingPrior

NETWORKS = {"encoder": {"kind": "mlp", "hidden": "128"}, "decoder": {"kind": "mlp", "hidden": "128"}}
TRAINING = {"epochs": 40, "batch_size": 64, "learning_rate": 2e-3, "ema": 0.98, "threads": 1, "quiet": True}
MLP: dict[str, Any] = {"latents": 6, "report": False, "callbacks": [SamplingPrior()], **NETWORKS, **TRAINING}


def many(seed: int = 0) -> np.ndarray:
    return rings(2600, 12, seed=seed)


def few() -> np.ndarray:
    return rings(60, 12)


def video() -> np.ndarray:
    """Every image stands for five video frames, whose first corner gets brighter: more than near copies,
    which stay in one split, differ by."""
    frames = rings(520, 12).repeat(5, 0)
    for number in range(5):
        frames[number::5, :2, :2] = 12 * number
    return frames


def noisy() -> np.ndarray:
    """Rings under noise of its own for every pixel, which no model can know."""
    return (0.5 * many() + 60 * np.random.default_rng(0).random((2600, 12, 12, 1))).astype(np.uint8)


def static() -> np.ndarray:
    return np.random.default_rng(0).integers(100, 156, (2600, 12, 12, 1)).astype(np.uint8)


def colour() -> np.ndarray:
    return rings(2600, 12, 3)


def boxes() -> np.ndarray:
    """Bright rectangles anywhere: five numbers make an image."""
    random = np.random.default_rng(0)
    light = random.uniform(120, 250, (2600, 1, 1))

    def profile() -> np.ndarray:
        half, centre = random.uniform(1.5, 4, (2600, 1)), random.uniform(3, 8, (2600, 1))
        return np.clip(half - abs(np.arange(12) - centre), 0, 1)

    row, column = profile(), profile()
    return (light * row[:, :, None] * column[:, None])[..., None].astype(np.uint8)


SIGMA = {"kind": "gaussian", "sigma": "learned"}
WIDE = {"encoder": {"kind": "mlp", "hidden": "512"}, "decoder": {"kind": "mlp", "hidden": "512"}}
TRAININGS: dict[str, tuple[Callable[[], np.ndarray], dict[str, Any]]] = {
    "beta far above 1": (many, {"objective": {"beta": 100.0}}),
    "no signal among noise": (static, {"likelihood": SIGMA, "epochs": 30}),
    "steps far too large": (many, {"learning_rate": 0.3, "optimizer": "adam"}),
    "large steps in colour": (colour, {"likelihood": SIGMA, "learning_rate": 0.2, "epochs": 30}),
    "two epochs": (many, {"epochs": 2}),
    "small steps": (many, {"learning_rate": 2e-5, "epochs": 15}),
    "sixty images": (few, {"epochs": 1000}),
    "memorized noise": (noisy, {"likelihood": SIGMA, "latents": 64, **WIDE, "objective": {"beta": 0.02}}),
    "one latent for six numbers": (colour, {"latents": 1, "epochs": 90}),
    "noise fixed at a half": (many, {"likelihood": {"kind": "gaussian", "sigma": "fixed", "scale": 0.5}}),
    "video frames": (video, {}),
    # without a fault
    "rings": (many, {}),
    "other rings": (lambda: many(7), {"latents": 5}),
    "colours, noise learned": (colour, {"likelihood": SIGMA, "objective": {"beta": 1.0}, "prior": "flow"}),
    "a learned prior": (many, {"prior": "mixture"}),
    "a flow posterior": (many, {"posterior": "iaf"}),
    "importance weights": (many, {"objective": {"kind": "iwae", "samples": 5}}),
    "boxes": (boxes, {"latents": 4, "epochs": 60}),
}
FAULTS: dict[str, tuple[str, str]] = {
    # the fault, and those that may come with it
    "beta far above 1": ("posterior collapse", ""),
    "no signal among noise": ("posterior collapse", "overfitting"),
    "steps far too large": ("learning rate too high", "any"),
    "large steps in colour": ("learning rate too high", "any"),
    "two epochs": ("unfinished training", ""),
    "small steps": ("unfinished training", ""),
    "sixty images": ("too little data", "overfitting"),
    "memorized noise": ("overfitting", ""),
    "one latent for six numbers": ("underfitting", ""),
    "noise fixed at a half": (
        "noise level too high",
        "underfitting, posterior collapse",
    ),
    "video frames": ("duplicates across the split", ""),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: MonkeyPatch) -> None:
    """Without what takes longest: a flow as the fitted prior, and checks of shapes."""
    monkeypatch.setattr(densities, "FLOW_STEPS", 100)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


FAMILIES: dict[str, set[str]] = {
    # a model that is trained on every run of the tests, and the faults that it stands for
    "two epochs": {"unfinished training", "learning rate too high"},
    "beta far above 1": {"posterior collapse"},
    "sixty images": {"too little data", "overfitting", "duplicates across the split"},
    "noise fixed at a half": {"noise level too high", "underfitting"},
}
TRAINED = {*FAMILIES, "rings"}
RECORDED = Path(__file__).parent / "recorded"


def cases(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in TRAINED else pytest.mark.slow) for name in names]


def train(folder: Path, images: np.ndarray, settings: dict[str, Any]) -> tuple[Run, EvaluationResult]:
    np.savez(folder / "images.npz", x=images)
    settings = MLP | settings
    model = vaekit.train(folder / "images.npz", preset="classic", out=folder / "run", **settings)
    return model.run, EvaluationResult.model_validate(model.evaluate(samples=5, quiet=True))


def record(name: str, folder: Path) -> None:
    """Train a model, and write what its diagnosis is made from."""
    make, settings = TRAININGS[name]
    run, result = train(folder, make(), settings)
    evaluation = result.model_dump(mode="json") | {"diagnosis": [], "data": "images.npz"}
    if evaluation["memorization"]:
        evaluation["memorization"]["duplicate_files"] = evaluation["memorization"]["duplicate_files"][:1]
    history = vaekit.load(run.folder).history[["epoch", "step", "seconds", "train_loss", "val_loss"]]
    dataset = json.loads(run.dataset.read_text())
    content = {
        "config": json.loads(run.config.read_text()) | {"source": "images.npz"},
        "dataset": dataset | {"source": "images.npz"},
        "training_images": dataset["splits"]["train"],
        "metrics": history.to_csv(index=False).splitlines(),
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
    config = Config.model_validate(content["config"]["config"])
    _, objective = build(config, tuple(content["config"]["shape"]))
    result = EvaluationResult.model_validate(content["evaluation"])
    return diagnose_run(run, config, objective.schedule_end, result, content["training_images"])


def check(name: str, findings: list[Finding]) -> None:
    fault, others = FAULTS.get(name, (None, ""))
    names = {finding.name for finding in findings}
    assert fault in names if fault else not findings, findings
    assert others == "any" or names <= {fault, *others.split(", ")}, findings
    for finding in findings:
        assert_valid(finding.fix)


@pytest.mark.parametrize("name", cases(TRAININGS))
def test_trained_model_has_its_fault_and_no_other(name: str, tmp_path: Path) -> None:
    make, settings = TRAININGS[name]
    _, result = train(tmp_path, make(), settings)
    check(name, result.diagnosis)


@pytest.mark.parametrize("name", TRAININGS)
def test_recorded_model_has_its_fault_and_no_other(name: str, tmp_path: Path) -> None:
    check(name, diagnose_recorded(name, tmp_path))


def test_families_cover_every_fault() -> None:
    assert set.union(*FAMILIES.values()) == {fault for fault, _ in FAULTS.values()}
    assert all(FAULTS[name][0] in faults for name, faults in FAMILIES.items())


HEALTHY: dict[str, Any] = json.loads((RECORDED / "rings.json").read_text())["evaluation"]
COLLAPSED = {"total": 32, "active": 0, "kl": None}


def curve(losses: Iterable[float]) -> list[dict[str, float]]:
    return [{"epoch": float(i), "train_loss": loss, "val_loss": loss} for i, loss in enumerate(losses, 1)]


def inputs_of(config: Config, result: dict[str, Any], retrain_command: Callable[..., str]) -> DiagnosisInput:
    progress = {"history": curve([150.0, *[100.0] * 9]), "loss_drop": 50.0, "unfinished": None}
    return DiagnosisInput(
        config=config,
        result=EvaluationResult.model_validate(HEALTHY | {"prior_gap": None, "memorization": None} | result),
        training_images=5000,
        run="runs/one",
        retrain_command=retrain_command,
        resume_command=lambda epochs: resume_command(*records(config), Path("runs/one"), epochs),
        **progress,
    )


def records(
    config: Config, preset: str = "classic", path: str | None = "photos", source: str = "photos"
) -> tuple[RunMetadata, DatasetSummary]:
    machine = {"seed": 0, "device": "cpu", "versions": {}, "threads": 1}
    metadata = RunMetadata(preset=preset, config=config, shape=(1, 8, 8), classes=(), source=path, **machine)
    splits = {"train": 90, "validation": 10, "test": 0}
    contents = {"images": 100, "width": 8, "height": 8, "channels": 1, "splits": splits, "skipped": []}
    return metadata, DatasetSummary(fingerprint="", source=source, **contents)


@pytest.mark.parametrize("more", [{}, {"flip": True, "crop": 4, "patience": 20, "objective": {"beta": 4.0}}])
@pytest.mark.parametrize("preset", PRESETS)
def test_fix_is_valid_and_changes_something(preset: str, more: dict[str, Any]) -> None:
    elbo = resolve(preset=preset).objective.kind == "elbo"
    config = resolve(more if elbo else {k: v for k, v in more.items() if k != "objective"}, preset=preset)
    metadata, dataset = records(config, preset)

    def retrain_command(*choices: dict[str, Any]) -> str:
        return train_command(metadata, dataset, first_valid(config, choices, 5000))

    reconstruction = HEALTHY["reconstruction"]
    findings: dict[str, dict[str, Any]] = {
        "posterior collapse": {"latents": COLLAPSED},
        "underfitting": {"training_reconstruction": reconstruction | {"explained_variance": 0.1}},
        "overfitting": {"reconstruction": reconstruction | {"mse": 0.03, "explained_variance": 0.8}},
        "duplicates across the split": {"memorization": HEALTHY["memorization"] | {"duplicates": 0.5}},
    }
    for fault, result in findings.items():
        (one,) = diagnose(inputs_of(config, result, retrain_command))
        assert one.name == fault
        assert assert_valid(one.fix) != config, one


@pytest.mark.parametrize(("kl", "faults"), [(0.02, ["posterior collapse"]), (2.0, [])])
def test_few_images_show_a_collapse_by_their_kl(kl: float, faults: list[str]) -> None:
    result = {"latents": {"total": 32, "active": None, "kl": None}}
    result["likelihood"] = HEALTHY["likelihood"] | {"kl": kl}
    findings = diagnose(inputs_of(resolve({"objective": {"beta": 50}}), result, lambda *_: "vaekit train"))
    assert [one.name for one in findings] == faults
    if faults:
        assert "KL is 0.02 nats" in findings[0].message and "beta = 50" in findings[0].message


def run_with(folder: Path, losses: Iterable[float], steps: int, seconds: float = 30.0) -> Run:
    """A run whose metrics.csv has these validation losses, after so many steps in all."""
    run, losses = Run(folder), list(losses)
    run.metrics.unlink(missing_ok=True)
    for epoch, loss in enumerate(losses, 1):
        step = steps * epoch / len(losses)
        append_metrics(run, {"epoch": epoch, "step": step, "seconds": seconds, "val_loss": loss})
    return run


def test_a_stopped_run_is_to_be_resumed_whatever_its_losses(tmp_path: Path) -> None:
    """An emoji run of 8 of 50 epochs, whose loss fell by a small share of its first fall."""
    run = run_with(tmp_path, [9000, 5000, 4800, 4700, 4650, 4620, 4600, 4590], 416)
    more = unfinished(run, resolve({"epochs": 50}), 0)
    assert more is not None and more.epochs is None
    assert more.text.endswith("after 8 of 50 epochs (416 steps). 42 more epochs take about 21 minutes.")
    findings = diagnose(replace(inputs_of(resolve(), {"latents": COLLAPSED}, str), unfinished=more))
    assert [(one.name, one.fix) for one in findings] == [
        ("unfinished training", "vaekit train --resume --out runs/one")
    ]


def test_epochs_that_are_missing_count_from_the_steps_done(tmp_path: Path) -> None:
    more = unfinished(run_with(tmp_path, [149.0, 148.0], 104), resolve({"epochs": 2}), 0)
    assert more is not None and more.epochs == 20  # 1,000 steps
    assert "18 more epochs take about 9 minutes" in more.text
    falling = unfinished(run_with(tmp_path, range(200, 100, -10), 5000), resolve({"epochs": 10}), 0)
    assert falling is not None and falling.epochs == 20 and "still falling" in falling.text


@pytest.mark.parametrize(
    ("losses", "steps", "settings"),
    [
        ([200.0, 101, 100.5, 100.2, 100.1, 100.0], 5000, {"epochs": 6}),
        ([200.0, 100, 120, 140, 160, 180], 60, {"epochs": 6}),  # few images, which it has memorized
        ([200.0, 100, 101, 101, 101, 101], 5000, {"epochs": 90, "patience": 4}),
        (range(200, 100, -10), 5000, {"epochs": 10, "schedule": "cosine"}),
    ],
)
def test_finished_runs(losses: Iterable[float], steps: int, settings: dict[str, Any], tmp_path: Path) -> None:
    assert unfinished(run_with(tmp_path, losses, steps), resolve(settings), 0) is None


def test_a_stopped_second_stage_is_to_be_resumed(tmp_path: Path) -> None:
    config = resolve({"epochs": 2, "flow_matching": {"steps": 1000}}, preset="best")
    run = run_with(tmp_path, [200.0, 100.0], 5000)
    run.second_stage.folder.mkdir()
    run_with(run.second_stage.folder, [1.3, 1.2, 1.1], 300, seconds=60)
    more = unfinished(run, config, 0)
    assert more is not None and more.epochs is None
    assert more.text == "Flow matching was stopped after 300 of 1,000 steps. The others take about 7 minutes."
    run_with(run.second_stage.folder, [1.3, 1.2, 1.1], 990)
    assert unfinished(run, config, 0) is None
    longer = unfinished(run_with(tmp_path, [200.0, 100.0], 500), config, 0)  # its latents change
    assert longer is not None and "2 more epochs and flow matching again take about 2 minutes" in longer.text


def test_small_fluctuations_are_no_fault() -> None:
    """When little is left to fall, they are no sign of a learning rate too high."""
    tail = curve(100.0 + 0.3 * (-1) ** i for i in range(10))
    well = replace(inputs_of(Config(), {}, lambda *_: ""), history=tail)
    assert diagnose(well) == []
    rough = [row | {"train_loss": row["train_loss"] + 9 * (row["epoch"] == 5)} for row in tail]
    assert [one.name for one in diagnose(replace(well, history=rough))] == ["learning rate too high"]


def test_commands_in_python_where_flags_cannot_express_them() -> None:
    custom = resolve({"encoder": {"kind": "own", "name": "Sequential"}, "objective": {"beta": 0.123456789}})
    settings = "encoder=encoder, preset='classic', objective={'beta': 0.123456789}"
    assert train_command(*records(custom, path="my photos")) == f"vaekit.train('my photos', {settings})"
    resnet = {"encoder": {"kind": "resnet", "attention": False}}
    plain = resolve(resnet, {"learning_rate": 0.00123456789, "flip": True})
    in_memory = records(plain, path=None, source="an ndarray in memory")
    resumed = resume_command(*in_memory, Path("runs/a"), 9)
    assert resumed == "vaekit.train(data, out='runs/a', resume=True, epochs=9)"
    sample = records(plain, path=None, source="the bundled sample")
    bundled = train_command(*sample)
    assert "--learning-rate 0.00123456789" in bundled and assert_valid(bundled) == plain
    assert resume_command(*sample, Path("my run"), 9) == ("vaekit train --resume --out 'my run' --epochs 9")


def assert_valid(command: str) -> Config:
    """The flags of a command are settings that go with each other; returns them."""
    verb, train, *arguments = shlex.split(command)
    assert (verb, train) == ("vaekit", "train")
    flags: dict[str, Any] = {"preset": "classic"}
    for argument, value in zip(arguments, [*arguments[1:], "--"], strict=True):
        if argument.startswith("--"):
            *slots, name = argument.removeprefix("--").split(".")
            here = flags.setdefault(slots[0], {}) if slots else flags
            flag = not name.startswith("no-") if value.startswith("--") else value
            here[name.removeprefix("no-").replace("-", "_")] = flag
    preset, *_ = (flags.pop(name, None) for name in ("preset", "resume", "out"))
    config = resolve(flags, preset=preset)
    assert is_valid(config)
    return config


if __name__ == "__main__":
    densities.FLOW_STEPS = 100
    for one in sys.argv[1:] or TRAININGS:
        with tempfile.TemporaryDirectory() as scratch:
            record(one, Path(scratch))
