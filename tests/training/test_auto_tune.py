"""What is "auto" is resolved by the device or by a trial."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest import LogCaptureFixture, MonkeyPatch

from command import MLP, refused, rings
from training.test_step import limited
from vaekit.data.decoding.pool import cores
from vaekit.models.vae import VAE
from vaekit.training.auto_tune import resolve_auto
from vaekit.training.plan import Plan, make_plan
from vaekit.training.request import TrainRequest
from vaekit.training.session import run_training
from vaekit.utils.device import matmul_precision


def resolved(max_minutes: float = math.inf, **settings: Any) -> Plan:
    return resolve_auto(make_plan(TrainRequest(rings(400, 12), (MLP | settings,), quiet=True)), max_minutes)


@pytest.fixture
def log_text(caplog: LogCaptureFixture, monkeypatch: MonkeyPatch) -> LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="vaekit")
    return caplog


def test_too_many_threads_are_warned_of(log_text: LogCaptureFixture) -> None:
    resolved(threads=cores() + 1)
    assert f"exceeds the {cores()} available cores" in log_text.text
    log_text.clear()
    resolved(threads=1)
    assert "Device: cpu (1 thread), float32" in log_text.text and "exceeds" not in log_text.text


def with_load(load: float, seconds: dict[int, float], monkeypatch: MonkeyPatch) -> None:
    """A machine with this load average, and steps that take so long with 1 and 2 threads."""
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(
        "vaekit.training.auto_tune._step_seconds", lambda *_: seconds[torch.get_num_threads()]
    )


@pytest.mark.parametrize(
    ("load", "one", "two", "expected"),
    [(2.0, 0.1, 1.0, 1), (2.0, 0.9, 1.0, 2), (0.1, 0.1, 1.0, 2)],
    ids=["busy", "busy, no gain", "not busy"],
)
def test_one_thread_is_used_where_other_programs_slow_several_down(
    load: float, one: float, two: float, expected: int, log_text: LogCaptureFixture, monkeypatch: MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    with_load(load, {1: one, 2: two}, monkeypatch)
    try:
        torch.set_num_threads(2)
        plan = resolved(compile="off")
        assert plan.metadata.threads == torch.get_num_threads() == expected
        line = "1 thread is 10.0 times as fast as 2 in a trial. To use 2: threads=2."
        assert (line in log_text.text) == (expected == 1)
        torch.set_num_threads(2)
        assert resolved(compile="off", threads=2).metadata.threads == 2  # given
    finally:
        torch.set_num_threads(before)


def test_a_resumed_run_keeps_its_threads(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    before = torch.get_num_threads()
    data, out = rings(400, 12), tmp_path / "run"
    try:
        torch.set_num_threads(2)
        for epochs, one in ((1, 0.1), (2, 9.0)):
            with_load(2.0, {1: one, 2: 1.0}, monkeypatch)
            settings = MLP | {"epochs": epochs, "compile": "off"}
            run_training(TrainRequest(data, (settings,), out=out, resume=epochs > 1, quiet=True), [])
            assert json.loads((out / "config.json").read_text())["threads"] == 1
    finally:
        torch.set_num_threads(before)


def test_a_resumed_run_keeps_the_chosen_batch_size(tmp_path: Path) -> None:
    auto = MLP | {"batch_size": "auto"}
    data, out = rings(2000, 12), tmp_path / "run"
    run_training(TrainRequest(data, (auto | {"epochs": 1},), out=out, quiet=True), [])
    record = json.loads((out / "config.json").read_text())
    chosen = record["batch_size"]
    assert chosen in (32, 64)  # twice 64 would leave fewer than 20 steps of 1,800 images
    assert record["config"]["training"]["batch_size"] == "auto"
    assert f"Batch size: {chosen} (fastest in a trial)" in (out / "log.txt").read_text()
    record["batch_size"] = 48  # a size that is never tried: it is read, not chosen again
    (out / "config.json").write_text(json.dumps(record))
    request = TrainRequest(data, (auto | {"epochs": 2},), out=out, resume=True, quiet=True)
    plan = resolve_auto(make_plan(request))
    assert plan.config.training.batch_size == plan.metadata.batch_size == 48


SECONDS: list[tuple[dict[int, float], int]] = [
    ({32: 1.0, 64: 1.0, 128: 1.0, 256: 1.0}, 256),  # a step takes as long whatever the batch
    ({32: 1.0, 64: 1.1, 128: 2.2, 256: 4.4}, 64),  # as long as its images
    ({32: 1.0, 64: 1.9, 128: 1.9, 256: 1.9}, 32),  # twice the images that cost nearly twice as much
    ({32: 1.0, 64: 1.0, 128: math.inf}, 64),  # does not fit in memory
]


@pytest.mark.parametrize(("seconds", "expected"), SECONDS)
def test_batches_double_as_long_as_it_pays(seconds: Any, expected: int, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.training.auto_tune._step_seconds", lambda _, size, *__: seconds[size])
    settings = MLP | {"batch_size": "auto", "compile": "off"}
    plan = make_plan(TrainRequest(rings(6000, 12), (settings,), quiet=True))
    # 256 leaves 5,400 images just over 20 steps
    assert resolve_auto(plan).config.training.batch_size == expected


def test_a_trial_that_does_not_fit_is_silent(monkeypatch: MonkeyPatch, caplog: Any) -> None:
    """Memory for 100 images: 128 would use micro-batches, which is not what is looked for."""
    monkeypatch.setattr(VAE, "prepare_target", lambda _, x: limited(x, 100))
    plan = make_plan(TrainRequest(rings(4000, 12), (MLP | {"batch_size": "auto"},), quiet=True))
    assert resolve_auto(plan).config.training.batch_size in (32, 64)
    assert "does not fit" not in caplog.text


def test_tf32_needs_a_gpu_that_has_it() -> None:
    refused("NVIDIA GPU of 2020 or later, and this run is on cpu", resolved, precision="tf32", device="cpu")
    before = torch.backends.cudnn.allow_tf32
    with matmul_precision(tf32=not before):
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (not before)
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.allow_tf32 == before and not torch.backends.cudnn.deterministic


def test_convolutions_use_bfloat16_where_it_is_fast(monkeypatch: MonkeyPatch) -> None:
    convolutions = {"encoder": "conv", "decoder": "conv"}
    for fast, kinds, expected in [
        (True, convolutions, "bf16"),
        (True, {}, "32"),
        (False, convolutions, "32"),
    ]:
        monkeypatch.setattr("vaekit.training.auto_tune.fast_bf16", lambda _, fast=fast: fast)
        assert resolved(**kinds).config.training.precision == expected
    assert resolved(**convolutions, precision="bf16").config.training.precision == "bf16"
    assert resolved(**convolutions, precision="32").config.training.precision == "32"


def test_long_runs_compile_if_that_is_faster(monkeypatch: MonkeyPatch, log_text: LogCaptureFixture) -> None:
    monkeypatch.setattr("vaekit.training.auto_tune._step_seconds", lambda *_: 100.0)
    assert resolved(max_minutes=1.0).config.training.compile == "off"
    assert "the run is too short to benefit" in log_text.text
    monkeypatch.setattr("vaekit.training.auto_tune.COMPILE_SECONDS", 0.0)
    for eager, compiled, expected in ((1.0, 0.5, "on"), (0.5, 1.0, "off")):
        times = iter([eager, compiled])
        monkeypatch.setattr("vaekit.training.auto_tune._step_seconds", lambda *_, times=times: next(times))
        plan = resolved()
        assert plan.config.training.compile == plan.metadata.compile == expected
        assert f"torch.compile: {expected}, {eager / compiled:.2f} times as fast" in log_text.text


def test_training_goes_without_a_failing_compiler(monkeypatch: MonkeyPatch, log_text: Any) -> None:
    monkeypatch.setattr("vaekit.training.auto_tune.COMPILE_SECONDS", 0.0)

    def broken(*_: Any, **__: Any) -> None:
        raise torch._dynamo.exc.InternalTorchDynamoError("no compiler")

    monkeypatch.setattr("torch.compile", broken)
    assert resolved().config.training.compile == "off"
    assert "torch.compile: off, it failed on this machine" in log_text.text
