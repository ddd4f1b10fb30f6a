"""Trackers: what they are given, one run of them for a run, and training that does not depend on them."""

import json
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest import MonkeyPatch
from safetensors.torch import load_file

import vaekit
from command import MLP, mistake, refused, rings
from vaekit.runs.metrics import read_metrics
from vaekit.training import tracking
from vaekit.training.artifacts import Pictures
from vaekit.training.callbacks import Callback, TrainingState
from vaekit.training.loop import EpochResult

IMAGES = rings(60, 12)
TINY: dict[str, Any] = MLP | {"quiet": True, "report": False}
NETWORK = {"kind": "dcae", "channels": 8, "blocks": 1}
BLOCK = 1 << 15
THEIR_WARNINGS = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""Which libraries give for each other's calls."""
TWO_STAGES: dict[str, Any] = {
    "preset": "best",
    "encoder": NETWORK,
    "decoder": NETWORK,
    "flow_matching": {"steps": 6, "channels": 8, "blocks": 1, "batch_size": 16},
    "batch_size": 16,
    "quiet": True,
    "report": False,
}


def train(run: Path, epochs: int, **settings: Any) -> vaekit.TrainedModel:
    settings = {"callbacks": [Pictures()], **TINY, **settings}
    return vaekit.train(IMAGES, out=run, epochs=epochs, resume=True, **settings)


def record(run: Path) -> dict[str, str]:
    content: dict[str, str] = json.loads((run / "tracker.json").read_text())
    return content


def warnings(run: Path) -> list[str]:
    return [line for line in (run / "log.txt").read_text().splitlines() if "stopped (" in line]


def events(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    return accumulator.Reload()


def test_tensorboard_has_metrics_pictures_and_settings_of_a_resumed_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, 2, track="tensorboard")
    begun = record(run)
    history = train(run, 3).history  # without `track`
    assert record(run) == begun == {"track": "tensorboard", "run_id": "tensorboard"}
    logged = events(run)
    for name in history.columns.drop("step"):
        points = [(event.step, event.value) for event in logged.Scalars(name)]
        assert points == list(zip(history["step"], history[name].astype(np.float32), strict=True)), name
    for name in ("samples", "reconstructions"):
        assert [event.step for event in logged.Images(name)] == list(history["step"])
        assert logged.Images(name)[0].encoded_image_string.startswith(b"\x89PNG")
    settings = logged.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert all(name in settings for name in (b"encoder.kind", b"learning-rate", b"preset"))
    assert warnings(run) == []


def test_the_second_stage_has_names_of_its_stage(tmp_path: Path) -> None:
    colour = np.repeat(IMAGES, 3, axis=3)
    model = vaekit.train(colour, out=tmp_path / "run", epochs=1, track="tensorboard", **TWO_STAGES)
    logged, rows = events(tmp_path / "run"), read_metrics(model.run.second_stage)
    [event] = logged.Scalars("latent_prior/val_loss")
    assert (event.step, event.value) == (rows[0]["step"], np.float32(rows[0]["val_loss"]))
    assert set(logged.Tags()["images"]) == {"samples", "reconstructions", "latent_prior/samples"}
    assert "latent_prior/train_kl" not in logged.Tags()["scalars"]  # which is empty in metrics.csv


def test_a_tracker_changes_no_weight(tmp_path: Path) -> None:
    for name, track in (("plain", None), ("tracked", "tensorboard")):
        train(tmp_path / name, 2, track=track)
    plain, tracked = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "tracked"))
    assert all(torch.equal(plain[name], tracked[name]) for name in plain)
    configs = [(tmp_path / name / "config.json").read_text() for name in ("plain", "tracked")]
    assert configs[0] == configs[1]


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, 1)
    (run / "tensorboard").write_text("a file in its place")
    assert len(train(run, 3, track="tensorboard").history) == 3
    [warning] = warnings(run)
    assert "Tracking with tensorboard stopped (FileExistsError" in warning
    assert record(run) == {"track": "tensorboard", "run_id": None}
    (run / "tensorboard").unlink()
    train(run, 4)  # tries it once more
    assert [event.value for event in events(run).Scalars("epoch")] == [4]


def test_a_call_that_fails_later_is_a_warning(tmp_path: Path) -> None:
    class Damage(Callback):
        def on_epoch_end(self, state: TrainingState, result: EpochResult, row: dict[str, float]) -> None:
            if state.progress.epoch >= 2:
                state.background.put("damage", lambda: state.run.samples(2).write_bytes(b"no image"))

    run = tmp_path / "run"
    model = train(run, 4, track="tensorboard", callbacks=[Pictures(), Damage()])
    assert len(model.history) == 4
    [warning] = warnings(run)
    assert "UnidentifiedImageError" in warning and "Training does not depend on it." in warning
    assert [event.value for event in events(run).Scalars("epoch")] == [1, 2]


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """It is refused if it is given, and a warning if a resumed run had it."""
    run = tmp_path / "run"
    train(run, 1, track="tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    hint = r"tensorboard is not installed. Run `pip install 'vaekit\[tensorboard\]'`."
    refused(hint, train, tmp_path / "new", 1, track="tensorboard")
    assert not (tmp_path / "new").exists()
    assert len(train(run, 2).history) == 2
    assert len(warnings(run)) == 1 and "is not installed" in warnings(run)[0]


def test_a_tracker_that_does_not_exist() -> None:
    refused("`track`: must be one of .*'wand'.*Did you mean 'wandb'", tracking.require_tracker, "wand")
    assert "Did you mean 'wandb'" in mistake("train", "--track", "wand")


@THEIR_WARNINGS
def test_mlflow_with_sqlite(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # for files of pictures
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run = tmp_path / "run"
    train(run, 2, track="mlflow")
    client = mlflow.MlflowClient()
    first = client.get_run(record(run)["run_id"])
    assert first.info.status == "FINISHED" and first.info.run_name == "run"
    assert first.data.params["encoder.kind"] == "mlp" and first.data.params["epochs"] == "2"
    history = train(run, 3).history
    assert record(run)["run_id"] == first.info.run_id and warnings(run) == []
    assert len(client.search_runs([first.info.experiment_id])) == 1
    for name in ("val_loss", "train_kl"):
        points = [(m.step, m.value) for m in client.get_metric_history(first.info.run_id, name)]
        assert points == list(zip(history["step"], history[name], strict=True))
    pictures = [file.path for file in client.list_artifacts(first.info.run_id, "images")]
    assert sum(path.endswith(".png") for path in pictures) == 6
    assert client.get_run(first.info.run_id).info.status == "FINISHED"


@THEIR_WARNINGS
@pytest.mark.parametrize("answers", [False, True])
def test_a_server_that_refuses_or_never_answers_is_a_warning(
    answers: bool, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not answers:
            server.close()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 2.0 if answers else 120.0)
        assert len(train(tmp_path / "run", 2, track="mlflow").history) == 2
    [warning] = warnings(tmp_path / "run")
    assert ("no answer for 2 seconds" if answers else "MlflowException") in warning


def leveldb_records(log: bytes) -> Iterator[bytes]:
    """The records of a file of wandb: a header of 7 bytes, then LevelDB's log format."""
    place, parts = 7, b""
    while place + 7 <= len(log):
        if (left := BLOCK - place % BLOCK) < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", log, place + 4)
        parts += log[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


@THEIR_WARNINGS
def test_wandb_offline(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    train(run, 2, track="wandb")
    begun = record(run)
    history = train(run, 3).history
    assert record(run) == begun and warnings(run) == []
    points, settings = [], {}
    for file in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        assert file.name == f"run-{begun['run_id']}.wandb"
        for data in leveldb_records(file.read_bytes()):
            item = Record.FromString(data)
            settings |= {part.key: json.loads(part.value_json) for part in item.run.config.update}
            row = {part.key or part.nested_key[0]: json.loads(part.value_json) for part in item.history.item}
            points += [(row["step"], row["val_loss"])] if row else []
    assert points == list(zip(history["step"], history["val_loss"], strict=True))
    assert settings["encoder.kind"] == "mlp"
    assert len(list(run.glob("wandb/offline-run-*/files/media/images/samples*.png"))) == 3


@THEIR_WARNINGS
def test_wandb_without_a_key_is_a_warning(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()  # what an earlier run has read of the environment
    train(tmp_path / "run", 1, track="wandb")
    [warning] = warnings(tmp_path / "run")
    assert "There is no API key. Run `wandb login`, or set WANDB_MODE=offline" in warning
