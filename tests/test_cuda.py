"""On an NVIDIA GPU: nothing waits for it within an epoch, recorded steps are the steps, runs go on bit for
bit, and a batch that does not fit goes through in parts. Skipped where there is none."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest import MonkeyPatch
from safetensors.torch import load_file

from command import MLP, rings, user_error, vaekit
from vaekit.config.overrides import resolve
from vaekit.config.presets import PRESETS
from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import open_pack
from vaekit.errors import TrainingFailed
from vaekit.models.builder import build
from vaekit.training.loop import Diverged, Progress, train
from vaekit.training.monitor import StepMonitor
from vaekit.training.optimizers import compute_dtype
from vaekit.training.request import TrainRequest
from vaekit.training.session import run_training
from vaekit.training.step import TrainStep
from vaekit.utils.cuda_graphs import CudaGraph
from vaekit.utils.device import matmul_precision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
GPU = torch.device("cuda")


class Counting(torch.cuda.CUDAGraph):
    """A CUDA graph that counts how often any is replayed."""

    replays = 0

    def replay(self) -> None:
        Counting.replays += 1
        super().replay()


@pytest.fixture(autouse=True)
def counted(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.CUDAGraph", Counting)


def steps(
    settings: dict[str, Any], preset: str, count: int, quiet_from: int | None = None
) -> tuple[Any, list[float]]:
    """The weights and losses of training steps; from `quiet_from` on, waiting for the device raises."""
    images = rings(240, 28)
    config = resolve({"batch_size": 16, "validation": "last:16"}, settings, preset=preset)
    pack = open_pack((images, np.arange(240) % 4), config.data, quiet=True)
    torch.manual_seed(0)
    model, objective = build(config, pack.shape, len(pack.classes), 224)
    model = model.to(GPU).train()
    model.precision = compute_dtype(config.training)
    loader = ImageLoader(pack, config.data, 16, 0, GPU)
    training = config.training.model_copy(update={"epochs": 1000})
    train_step = TrainStep(model, objective, training, loader.steps_per_epoch)
    progress = Progress(epoch=200)  # where all schedules have ended
    losses: list[torch.Tensor] = []
    begun = Counting.replays

    def on_step(loss: torch.Tensor) -> bool:
        losses.append(loss.clone())
        if len(losses) == quiet_from:
            torch.cuda.set_sync_debug_mode("error")
        if len(losses) == count:
            torch.cuda.set_sync_debug_mode("default")
        return len(losses) == count

    try:
        with matmul_precision(tf32=config.training.precision == "tf32"):
            list(train(train_step, loader, training.epochs, progress, on_step))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    replays, expected = Counting.replays - begun, min(count, 14) - CudaGraph.WARMUP_CALLS
    assert replays >= expected if model.graph_safe and expected > 0 else replays == 0
    return model.state_dict(), torch.stack(losses).tolist()


@contextmanager
def unrecorded(monkeypatch: MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(CudaGraph, "WARMUP_CALLS", 1000)
        yield


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "sgd", "soap"])
@pytest.mark.parametrize("clip", [0, 10])
def test_recorded_steps_of_every_optimizer(optimizer: str, clip: int, monkeypatch: MonkeyPatch) -> None:
    settings = {"optimizer": optimizer, "clip": clip, "learning_rate": 1e-5, "ramp": 5, "schedule": "cosine"}
    recorded, losses = steps(settings, "classic", 24)  # soap turns its bases at steps 1 and 21
    with unrecorded(monkeypatch):
        ordinary, expected = steps(settings, "classic", 24)
    assert losses == pytest.approx(expected, rel=1e-5)
    for name, tensor in ordinary.items():
        assert torch.equal(recorded[name], tensor), name


@pytest.mark.parametrize("waits", [False, True])
def test_graphs_draw_new_noise_and_take_other_shapes(waits: bool) -> None:
    """A function that waits for the device cannot be recorded."""
    scale = (lambda x: float(x.sum().isfinite().item())) if waits else (lambda x: 1.0)
    graph = CudaGraph(lambda x: x + torch.randn_like(x) * scale(x))
    for call in range(8):
        x = torch.full((5,), float(call), device=GPU)
        torch.cuda.default_generators[0].manual_seed(call)
        result = graph(x).clone()
        torch.cuda.default_generators[0].manual_seed(call)
        assert torch.equal(result, x + torch.randn(5, device=GPU))
    assert (graph.graph is None) == (not graph.graph_safe) == waits
    assert graph(torch.ones(3, device=GPU)).shape == (3,)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_resumed_runs_are_bit_identical(network: str, tmp_path: Path) -> None:
    data = rings(400, 28)
    networks = {"encoder": network, "decoder": network, "latents": 4}
    settings = networks | {"batch_size": 16, "flip": True, "crop": 1}
    for name, epochs in (("unbroken", (4,)), ("broken", (2, 4))):
        for last in epochs:
            layers = (settings | {"epochs": last},)
            resume = last != epochs[0]
            run_training(TrainRequest(data, layers, out=tmp_path / name, resume=resume, quiet=True))
    result = [load_file(tmp_path / name / "model.safetensors") for name in ("unbroken", "broken")]
    assert [name for name in result[0] if not torch.equal(result[0][name], result[1][name])] == []
    assert json.loads((tmp_path / "broken" / "config.json").read_text())["device"] == "cuda"


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_other_arithmetic_stays_near_float32(precision: str, network: str) -> None:
    settings = {"encoder": network, "decoder": network}
    exact = steps(settings | {"precision": "32"}, "classic", 60)[1]
    result = steps(settings | {"precision": precision}, "classic", 60)[1]
    assert np.mean(result[-10:]) == pytest.approx(np.mean(exact[-10:]), rel=0.02)
    assert result != exact


def test_gpu_and_cpu_agree() -> None:
    model, _ = build(resolve({}), (3, 32, 32))
    x = torch.from_numpy(rings(8, 32, 3)).permute(0, 3, 1, 2) / 255
    with torch.no_grad(), matmul_precision():
        expected = model.eval().reconstruct(x)
        result = copy.deepcopy(model).to(GPU).reconstruct(x.to(GPU)).cpu()
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@contextmanager
def memory(megabytes: int) -> Iterator[None]:
    """Leave so much of the device's memory to this process, beside what it has."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (megabytes << 20)) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_that_does_not_fit_goes_through_in_parts(tmp_path: Path) -> None:
    """A tensor of 64 images, 128 samples and 3,072 pixels takes 100 MB."""
    images = np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), np.uint8)
    small = {"kind": "mlp", "hidden": 16}
    networks = {"encoder": small, "decoder": small, "latents": 4}
    settings = networks | {"batch_size": 64, "epochs": 6, "precision": "32"}
    iwae = {"objective": {"kind": "iwae", "samples": 128}}
    with memory(300):
        out = run_training(TrainRequest(images, (settings | iwae,), out=tmp_path / "run", quiet=True)).folder
        assert "does not fit in the memory of cuda: using" in (out / "log.txt").read_text()
        states = sorted(out.glob("checkpoints/*/state.json"))
        assert json.loads(states[-1].read_text())["micro_batches"] > 1
    # 100 MB a batch of floats
    large = np.random.default_rng(0).integers(0, 256, (600, 128, 128, 3), np.uint8)
    with memory(250), user_error("needs all of it at once"):
        settings |= {"objective": "mmd", "batch_size": 512}
        run_training(TrainRequest(large, (settings,), out=tmp_path / "other", quiet=True))


def test_batches_are_the_same_on_every_device(monkeypatch: MonkeyPatch) -> None:
    config = resolve({"flip": True, "crop": 1})
    pack = open_pack((rings(100, 12), np.arange(100) % 3), config.data, quiet=True)
    empty = torch.cuda.memory_allocated()
    cached = ImageLoader(pack, config.data, 16, 0, GPU)
    before = torch.cuda.memory_allocated()
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (1000, 1000))
    sent, on_cpu = (ImageLoader(pack, config.data, 16, 0, device) for device in (GPU, torch.device("cpu")))
    assert empty < torch.cuda.memory_allocated() == before
    for (x, y), *others in zip(cached.train(1), sent.train(1), on_cpu.train(1), strict=True):
        assert x.is_cuda
        for a, b in others:
            assert torch.equal(x.cpu(), a.cpu()) and torch.equal(y.cpu(), b.cpu())


def test_a_loss_that_is_no_number_is_seen(tmp_path: Path) -> None:
    wild = MLP | {"optimizer": "sgd", "learning_rate": 100.0, "epochs": 100}
    with pytest.raises(TrainingFailed, match="loss became"):
        run_training(TrainRequest(rings(400, 12), (wild,), out=tmp_path / "run", quiet=True))


def test_looking_at_the_loss_waits_for_nothing() -> None:
    watch, losses = StepMonitor(16, lambda *_: None, lambda: False), torch.randn(100, device=GPU)
    watch.PERIOD = 0
    torch.cuda.set_sync_debug_mode("error")
    try:
        for loss in losses.unbind():
            assert not watch.on_step(loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    with pytest.raises(Diverged):
        for _ in range(2):
            watch.on_step(losses[0] * torch.nan)
            torch.cuda.synchronize()


def test_what_is_left_open_is_found(tmp_path: Path) -> None:
    settings = MLP | {"batch_size": "auto", "epochs": 2}
    for network, expected in (("mlp", "tf32"), ("conv", "bf16")):
        kinds = {"encoder": network, "decoder": network}
        request = TrainRequest(rings(4000, 12), (settings | kinds,), out=tmp_path / network, quiet=True)
        out = run_training(request).folder
        record = json.loads((out / "config.json").read_text())
        assert record["precision"] == expected and record["batch_size"] in (32, 64, 128)
        assert record["hardware"] == torch.cuda.get_device_name()


@pytest.mark.slow
def test_a_compiled_run_is_recorded_too(tmp_path: Path) -> None:
    """In a process of its own, where no types are checked: compiling would stop at every check."""
    network = ("--encoder", "mlp", "--decoder", "mlp", "--batch-size", 128, "--compile", "on")
    vaekit("train", "--out", tmp_path / "run", "--epochs", 2, *network)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "cannot be captured" not in log and "epoch 2/2" in log


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_waits_for_the_device_within_an_epoch(preset: str) -> None:
    _, losses = steps({}, preset, 12, quiet_from=6)
    assert len(losses) == 12 and np.isfinite(losses).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_recorded_steps_are_the_steps(preset: str, monkeypatch: MonkeyPatch) -> None:
    recorded, losses = steps({}, preset, 12)
    with unrecorded(monkeypatch):
        ordinary, expected = steps({}, preset, 12)
    assert losses == pytest.approx(expected, rel=1e-5)
    differ = [name for name in ordinary if not torch.equal(ordinary[name], recorded[name])]
    for name in differ:
        torch.testing.assert_close(recorded[name], ordinary[name], rtol=1e-3, atol=1e-5)
    assert not differ, differ


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_steps_twice_are_the_same_bit_for_bit(preset: str) -> None:
    one, two = steps({}, preset, 8)[0], steps({}, preset, 8)[0]
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
