"""What happens around the loop: callbacks, the time left, and files that are written on the side."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pytest import MonkeyPatch

import vaekit
from command import MLP, rings
from vaekit.errors import TrainingFailed
from vaekit.training.artifacts import DataPreview
from vaekit.training.background_writer import BackgroundWriter
from vaekit.training.callbacks import Callback, TrainingState
from vaekit.training.loop import EpochResult
from vaekit.training.monitor import PRIOR_SECONDS, PRIOR_SHARE, REPORT_SHARE, TimeLeft, work_at_end

TINY: dict[str, Any] = MLP | {"quiet": True, "report": False}


class Recorder(Callback):
    """Notes what it is called with."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.rows: list[dict[str, float]] = []

    def on_train_begin(self, state: TrainingState) -> None:
        self.events.append(f"begin {state.progress.epoch}")
        with Image.open(state.run.data_preview) as sheet:
            assert min(sheet.size) > 100

    def on_epoch_end(self, state: TrainingState, result: EpochResult, row: dict[str, float]) -> None:
        self.events.append(f"epoch {state.progress.epoch}")
        self.rows.append(row)
        assert row["val_loss"] == result.validation["loss"]

    def on_train_end(self, state: TrainingState) -> None:
        self.events.append("end")

    def on_saved(self, state: TrainingState) -> None:
        assert state.run.weights.exists()
        self.events.append("saved")


def test_a_callback_sees_training_from_begin_to_end(tmp_path: Path) -> None:
    """data.png shows the inputs before the first step."""
    recorder = Recorder()
    callbacks = [DataPreview(), recorder]
    trained = vaekit.train(rings(60, 12), out=tmp_path / "run", epochs=2, callbacks=callbacks, **TINY)
    assert recorder.events == ["begin 0", "epoch 1", "epoch 2", "end", "saved"]
    assert [row["val_loss"] for row in recorder.rows] == list(trained.history["val_loss"])
    second = Recorder()
    settings = TINY | {"out": tmp_path / "run", "epochs": 3, "callbacks": [second]}
    vaekit.train(rings(60, 12), resume=True, **settings)
    assert second.events == ["begin 2", "epoch 3", "end", "saved"]


def test_without_callbacks_nothing_is_drawn(tmp_path: Path) -> None:
    vaekit.train(rings(60, 12), out=tmp_path / "run", epochs=1, callbacks=[], **TINY)
    assert not list((tmp_path / "run").rglob("*.png"))
    assert not (tmp_path / "run" / "latent_prior.safetensors").exists()
    assert vaekit.load(tmp_path / "run").sample(2).shape == (2, 12, 12, 1)


def test_a_failing_callback_fails_the_training(tmp_path: Path) -> None:
    class Failing(Callback):
        def on_epoch_end(self, state: TrainingState, result: EpochResult, row: dict[str, float]) -> None:
            state.background.put("job", self.fail)

        def fail(self) -> None:
            raise TrainingFailed("a job failed")

    with pytest.raises(TrainingFailed, match="a job failed"):
        vaekit.train(rings(60, 12), out=tmp_path / "run", epochs=2, callbacks=[Failing()], **TINY)


def test_the_time_left_includes_what_follows_the_epochs(monkeypatch: MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    short, long = (
        TimeLeft(100.0, limit, 1000, work_at_end(1000, 500), PRIOR_SECONDS) for limit in (30.0, float("inf"))
    )
    assert math.isnan(long.estimate(5000))  # nothing to go by
    for time_left in (short, long):
        time_left.add(32)  # compiled: not counted
        time_left.add(1000)
    clock[0] = 110.0  # 10 ms per image
    after = PRIOR_SECONDS + 0.01 * (PRIOR_SHARE * 1000 + REPORT_SHARE * 500)
    assert long.estimate(5000) == pytest.approx(50 + after)
    assert short.estimate(5000) == pytest.approx(20 + 5 + after)  # half an epoch beyond the limit, on average
    assert short.estimate(500) == pytest.approx(5 + after)
    filling = TimeLeft(100.0, float("inf"), 1000, 0.0, 0.0, planned=60.0)  # by a second stage
    filling.add(32)
    filling.add(1000)
    clock[0] = 120.0
    assert filling.estimate(500) == pytest.approx(40)
    assert filling.estimate(9000) == pytest.approx(90)


def test_background_jobs_are_replaced_by_later_ones() -> None:
    written: list[int] = []
    with BackgroundWriter() as writer:
        writer.put("slow", lambda: time.sleep(0.2))
        for number in range(5):
            writer.put("numbers", lambda number=number: written.append(number))
    assert written == [4]


def test_a_limited_job_takes_its_share_of_the_time(monkeypatch: MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr("vaekit.training.background_writer.TIME_SHARE", 0.1)
    with BackgroundWriter() as writer:
        assert writer.ready("job")
        writer.put("job", lambda: clock.append(clock.pop() + 3.0))
    assert not writer.ready("job") and writer.ready("another job")
    clock[0] = 33.1
    assert writer.ready("job")
