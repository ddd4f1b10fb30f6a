"""A run that is broken off and resumed is the run that was not, bit for bit."""

import csv
import io
import json
import logging
import random
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from command import mistake, rings, start, vaekit, wait_for
from vaekit.training.interrupts import stop_on_signals
from vaekit.utils.logging import console_logging, log

SMALL = (
    "--preset",
    "classic",
    *("--encoder.kind", "mlp", "--decoder.kind", "mlp", "--encoder.hidden", 32, "--decoder.hidden", 32),
    *("--latents", 4, "--batch-size", 16, "--flip", "--crop", 1),
    *("--threads", 1, "--compile", "off", "--no-report"),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rings.npy"
    np.save(path, rings())
    return path


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    vaekit("train", images, "--out", run, "--epochs", 60, *SMALL)
    return run


def end_state(run: Path) -> dict[str, np.ndarray]:
    """Weights to use, and weights and optimizer of the last checkpoint."""
    last = max((run / "checkpoints").glob("step_*"))
    state = {f"use.{k}": v for k, v in load_file(run / "model.safetensors").items()}
    state |= load_file(last / "model.safetensors")
    return state | {f"optimizer.{k}": v for k, v in load_file(last / "optimizer.safetensors").items()}


def curves(run: Path) -> list[list[str]]:
    """metrics.csv without its clock."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [[v for k, v in row.items() if k not in ("seconds", "images_per_second")] for row in rows]


def same(run: Path, other: Path) -> None:
    one, two = end_state(run), end_state(other)
    assert one.keys() == two.keys()
    assert [name for name in one if not np.array_equal(one[name], two[name])] == []
    assert curves(run) == curves(other)
    one_picture, other_picture = (at / "samples" / "epoch_0060.png" for at in (run, other))
    assert one_picture.read_bytes() == other_picture.read_bytes()


def rows(run: Path) -> int:
    return (run / "metrics.csv").read_text().count("\n") if (run / "metrics.csv").exists() else 0


def test_runs_killed_at_random_resume_bit_for_bit(tmp_path: Path, images: Path, unbroken: Path) -> None:
    chance, run = random.Random(5), tmp_path / "run"
    killed = 0
    for _ in range(3):
        process = start("train", images, "--out", run, "--resume", "--epochs", 60, *SMALL)
        goal = rows(run) + chance.randint(3, 15)
        wait_for(lambda: rows(run) >= goal, process)  # noqa: B023
        try:
            process.wait(timeout=chance.uniform(0, 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        process.communicate()
    assert killed == 3
    vaekit("train", images, "--out", run, "--resume", "--epochs", 60, *SMALL)
    same(run, unbroken)


def test_interrupted_epochs_resume_bit_for_bit(tmp_path: Path, images: Path, unbroken: Path) -> None:
    run = tmp_path / "run"
    for number, more in ((signal.SIGINT, 4), (signal.SIGTERM, 9)):
        process = start("train", images, "--out", run, "--resume", "--epochs", 60, *SMALL)
        goal = rows(run) + more
        wait_for(lambda: rows(run) >= goal, process)  # noqa: B023
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 75, err
        state = json.loads((max((run / "checkpoints").glob("step_*")) / "state.json").read_text())
        assert rows(run) == state["epoch"] + 1
    output = vaekit("train", "--out", run, "--resume")
    assert "Resuming in epoch" in output
    same(run, unbroken)


def test_epochs_can_be_raised(tmp_path: Path, images: Path, unbroken: Path) -> None:
    run = tmp_path / "run"
    vaekit("train", images, "--out", run, "--epochs", 23, *SMALL)
    before = {file: file.read_bytes() for file in run.rglob("*.safetensors")}
    assert "Nothing to do" in vaekit("train", "--out", run, "--resume")
    assert before == {file: file.read_bytes() for file in run.rglob("*.safetensors")}
    vaekit("train", "--out", run, "--resume", "--epochs", 60)
    same(run, unbroken)


def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, images: Path, unbroken: Path) -> None:
    run = tmp_path / "run"
    vaekit("train", images, "--out", run, "--epochs", 20, *SMALL)
    vaekit("train", "--out", run, "--resume", "--epochs", 30)
    newest = max((run / "checkpoints").glob("step_*")) / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    vaekit("train", "--out", run, "--resume", "--epochs", 30)
    assert "Nothing to do" in vaekit("train", "--out", run, "--resume")
    vaekit("train", "--out", run, "--resume", "--epochs", 60)
    same(run, unbroken)


def test_other_settings_or_data_are_refused(tmp_path: Path, images: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other.npy"
    vaekit("train", images, "--out", run, "--epochs", 1, *SMALL)
    np.save(other, rings(seed=1))
    assert "already contains a run" in mistake("train", images, "--out", run)
    resume = ("train", "--out", run, "--resume")
    assert "was started with --latents 4, not 5" in mistake(*resume, images, "--latents", 5)
    assert "was trained on other images" in mistake("train", other, "--out", run, "--resume")
    process = start("train", "--out", run, "--resume", "--epochs", 100_000)
    wait_for(lambda: rows(run) > 3, process)
    assert "in use by another process" in mistake("train", "--out", run, "--resume", "--epochs", 100_000)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert "was started with --epochs 100000, which cannot be lowered" in mistake(*resume, "--epochs", 9)


def test_divergence_stops_the_run(tmp_path: Path, images: Path) -> None:
    sgd = ("--optimizer", "sgd", "--learning-rate", 100)
    process = start("train", images, "--out", tmp_path / "wild", *SMALL, *sgd)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--learning-rate 30" in err.strip().splitlines()[-1]
    assert not (tmp_path / "wild" / "model.safetensors").exists()
    assert not list((tmp_path / "wild").glob("checkpoints/step_*"))


def test_a_signal_during_a_write_does_not_nest_another_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written, signals = list[str](), [signal.SIGINT]

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            if signals:
                signal.raise_signal(signals.pop())
            written.append(text[:5])
            return len(text)

    monkeypatch.setattr(log, "handlers", [logging.StreamHandler(Stream())])
    with console_logging(quiet=True), stop_on_signals(SimpleNamespace(stop_requested=False, finish_up=False)):
        log.info("epoch 1")
    wait_for(lambda: len(written) == 2)
    assert written == ["epoch", "Stopp"]
