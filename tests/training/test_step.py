"""A training step: in micro-batches, compiled, in bfloat16, and without waiting for a GPU."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest import MonkeyPatch
from torch.utils._python_dispatch import TorchDispatchMode

from command import MLP, NEW_PROCESS, mistake, refused, rings, user_error
from vaekit.config.config import settings_classes
from vaekit.config.overrides import resolve
from vaekit.config.presets import PRESETS
from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import open_pack
from vaekit.models.builder import build
from vaekit.models.terms import Group, Objective, Terms
from vaekit.models.vae import VAE
from vaekit.training.loop import evaluate
from vaekit.training.step import TrainStep, make_loss_fn
from vaekit.utils.cuda_graphs import CudaGraph


def made(**settings: Any) -> tuple[VAE, Objective]:
    return build(resolve(MLP | settings), (1, 12, 12), images=64)


def make_step(model: VAE, objective: Objective, **settings: Any) -> TrainStep:
    return TrainStep(model.train(), objective, resolve(MLP | settings).training, steps_per_epoch=10)


def images(count: int = 16) -> torch.Tensor:
    return torch.from_numpy(rings(count, 12)).permute(0, 3, 1, 2) / 255


class SmallMemory:
    """A loss function whose memory suffices for so many images only."""

    def __init__(self, train_step: TrainStep, limit: int, error: RuntimeError) -> None:
        self.loss_fn, self.limit, self.error = train_step.loss_fn, limit, error

    def __call__(self, x: torch.Tensor, y: Any, epoch: float) -> Any:
        loss, metrics = self.loss_fn(x, y, epoch)
        if len(x) > self.limit:
            loss.backward()  # as if it ran out in the middle of the backward pass: half a gradient is there
            raise self.error
        return loss, metrics


def weights_gradient(model: VAE) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def limited(x: torch.Tensor, limit: int) -> torch.Tensor:
    if len(x) > limit:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return x


NO_MEMORY = (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"))


@pytest.mark.parametrize("error", NO_MEMORY)
def test_micro_batches_give_the_gradient_of_the_batch(error: RuntimeError) -> None:
    """With a decoder that does not look at z, so that the noise, which differs, does not matter."""
    model, objective = made(ema=0)
    reading: torch.Tensor = model.decoder.layers.first.weight
    torch.nn.init.zeros_(reading.requires_grad_(False))
    train_step, x = make_step(model, objective, ema=0), images(15)
    full = train_step.compute_gradient(x, None, 0.0)
    expected = weights_gradient(model)
    assert train_step.micro_batches == 1
    train_step.loss_fn = SmallMemory(train_step, 4, error)
    metrics = train_step.compute_gradient(x, None, 0.0)
    assert train_step.micro_batches == 4  # of 4, 4, 4 and 3 images
    torch.testing.assert_close(weights_gradient(model), expected, rtol=1e-4, atol=1e-5)
    for name, value in full.items():
        torch.testing.assert_close(metrics[name], value.detach(), rtol=1e-5, atol=1e-4)


def test_validation_divides_batches_that_do_not_fit(monkeypatch: MonkeyPatch) -> None:
    """Training has kept its memory; what it leaves holds 5 of the 16 images of a batch."""
    train_step, config = make_step(*made()), resolve(MLP)
    pack = open_pack(rings(400, 12), config.data, quiet=True)
    loader = ImageLoader(pack, config.data, 16, 0, torch.device("cpu"))
    expected = evaluate(train_step, loader, "validation")
    monkeypatch.setattr(VAE, "prepare_target", lambda _, x: limited(x, 5))
    metrics = evaluate(train_step, loader, "validation")
    assert (train_step.micro_batches, train_step.eval_micro_batches) == (1, 4)
    # with other noise
    assert metrics["reconstruction"] == pytest.approx(expected["reconstruction"], rel=0.05)
    assert metrics["kl"] == pytest.approx(expected["kl"], rel=1e-5)


@pytest.mark.parametrize("module", [None, torch.nn.BatchNorm2d(1)])
def test_running_averages_are_not_divided(module: torch.nn.Module | None) -> None:
    model, objective = made(likelihood={"kind": "gaussian", "sigma": "fixed" if module else "optimal"})
    if module is not None:
        model.encoder.add_module("custom", module)
    train_step = make_step(model, objective)
    with MonkeyPatch.context() as patch, user_error("needs all of it at once"):
        patch.setattr(VAE, "prepare_target", lambda _, x: limited(x, 4))
        train_step.compute_gradient(images())


def test_errors_other_than_a_large_batch_are_raised(monkeypatch: MonkeyPatch) -> None:
    train_step = make_step(*made())
    zeros_like = torch.zeros_like
    monkeypatch.setattr(torch, "zeros_like", lambda like, **how: zeros_like(limited(like, 100), **how))
    refused("optimizer='sgd'", train_step.optimize, images(), None, math.inf)
    train_step = make_step(*made())
    train_step.loss_fn = SmallMemory(train_step, 4, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        train_step.compute_gradient(images())


AT_ONCE = "needs all of it at once"
INDIVISIBLE = [({"objective": "mmd"}, 4, AT_ONCE), ({"objective": {"free_bits": 0.1}}, 4, AT_ONCE)]


INDIVISIBLE += [({}, 0, "a single image does not either")]


@pytest.mark.parametrize(("settings", "limit", "text"), INDIVISIBLE)
def test_indivisible_batches_are_refused(settings: dict[str, Any], limit: int, text: str) -> None:
    train_step = make_step(*made(**settings))
    train_step.loss_fn = SmallMemory(train_step, limit, torch.OutOfMemoryError("out of memory"))
    with user_error(text) as refused:
        train_step.compute_gradient(images())
    assert "batch_size" in str(refused.value)


@pytest.mark.parametrize("kind", [*settings_classes("objective"), "free_bits", "capacity"])
def test_objectives_that_support_accumulation_are_means(kind: str) -> None:
    objective: Any = kind
    x = images(16)
    x[8:] = 0
    if kind in ("free_bits", "capacity"):  # at the value of the whole batch, around which the halves lie
        model, _ = made()
        group = model.terms(x).groups[0]
        per_latent = group.kl_per_latent.mean(0)
        objective = {kind: (per_latent[0] if kind == "free_bits" else per_latent.sum()).item()}
    model, minimized = made(objective=objective)
    with torch.no_grad():
        full = model.terms(x, None, minimized.samples)
        values = [minimized(full)[0].item()]
        for rows in (slice(0, 8), slice(8, 16)):
            z = full.groups[0].z[:, rows]
            log_px = model.decode(z, None, x[rows]).log_prob(x[rows])
            torch.manual_seed(0)  # of what `mmd` draws
            group = Group(z, model.encode(x[rows]), full.groups[0].p)
            values.append(minimized(Terms(log_px, (group,)))[0].item())
    mean = sum(values[1:]) / 2
    assert math.isclose(values[0], mean, rel_tol=1e-6) == minimized.supports_accumulation, values


LIMITED = """
import resource, sys, numpy as np
from vaekit.training.request import TrainRequest
from vaekit.training.session import run_training
from vaekit.training.step import TrainStep
from pathlib import Path
images = np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), np.uint8)
small = {"kind": "mlp", "hidden": 16}
settings = dict(encoder=small, decoder=small, latents=4, batch_size=64, epochs=1, threads=1, precision="32",
                compile="off", objective={"kind": "iwae", "samples": 128})
request = TrainRequest(images, (settings,), "laplace", Path(sys.argv[1]))
compute_gradient = TrainStep.compute_gradient
def limited(*arguments):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (230 << 20), -1))
    try:
        return compute_gradient(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
TrainStep.compute_gradient = limited
run_training(request, callbacks=[])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
def test_a_cpu_without_enough_memory_uses_micro_batches(tmp_path: Path) -> None:
    """64 images with 128 samples of 3,072 pixels: a tensor takes 100 MB, and there are 230."""
    out = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", LIMITED, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "does not fit in the memory of cpu: using" in " ".join(done.stdout.split())
    states = sorted(out.glob("checkpoints/*/state.json"))
    assert json.loads(states[-1].read_text())["micro_batches"] > 1


WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"}
WAITING |= {"lift_fresh", "bincount"}


class Listener(TorchDispatchMode):
    """Notes every operation whose result, or shape, a CPU would wait for, and tensors made of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
        masks = [i for i in indices if isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8)]
        if name in WAITING or (name.startswith("index") and masks):
            self.heard.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_never_waits_for_its_device(preset: str) -> None:
    config = resolve({"batch_size": 16}, preset=preset)
    model, objective = build(config, (1, 28, 28), classes=4, images=224)
    train_step = TrainStep(model.train(), objective, config.training, steps_per_epoch=10)
    x = torch.from_numpy(rings(16, 28)).permute(0, 3, 1, 2) / 255
    y = torch.arange(16) % 4 if model.classes else None
    train_step.optimize(x, y, math.inf)
    with Listener() as listener:
        train_step.optimize(x, y, math.inf)
    assert listener.heard == []


def test_the_listener_hears_what_waits() -> None:
    with Listener() as listener:
        x = torch.tensor([1.0, 2.0])
        x[x > 1].sum().item()
    assert listener.heard == ["lift_fresh", "index", "_local_scalar_dense"]


def test_without_an_nvidia_gpu_every_call_is_made() -> None:
    graph = CudaGraph(lambda x: x + torch.randn_like(x))
    torch.manual_seed(1)
    results = [graph(torch.zeros(4)) for _ in range(8)]
    torch.manual_seed(1)
    assert torch.equal(torch.stack(results), torch.stack([torch.randn(4) for _ in range(8)]))


COMPILED = """
import torch
from vaekit.models.builder import build
from vaekit.config.overrides import resolve
from vaekit.training.step import TrainStep
settings = {"encoder": "mlp", "decoder": "mlp", "latents": 3, "objective": {"warmup": 2, "beta": 3.0}}
config = resolve(settings)
model, objective = build(config, (1, 12, 12))
parameters, x = list(model.parameters()), torch.rand(16, 1, 12, 12)
choices = [config.training.model_copy(update={"compile": choice}) for choice in ("off", "on")]
train_steps = [TrainStep(model, objective, training, 10) for training in choices]
for epoch in (0.5, 1.5, 2.0, 2.5, 7.0):
    results = []
    for train_step in train_steps:
        torch.manual_seed(1)
        loss = train_step.compute_gradient(x, None, epoch)["loss"].detach()
        results.append(torch.cat([loss[None], *(p.grad.flatten() for p in parameters)]))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)
print("graphs:", torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


@pytest.mark.slow
def test_a_compiled_step_is_the_eager_step() -> None:
    """In a process without shape checks, at which the compiler would stop."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "graphs: 1\n" in done.stdout


def test_of_models_with_flows_only_networks_are_compiled() -> None:
    model, objective = made(prior={"kind": "flow", "steps": 2, "hidden": 8})
    make_loss_fn(model, objective, compiled=True)
    assert model.encoder._compiled_call_impl is not None and model.prior._compiled_call_impl is None


def test_compile_without_a_compiler_is_a_user_error(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    settings = ("--epochs", 1, "--compile", "on", "--encoder", "mlp", "--decoder", "mlp")
    text = mistake("train", "--out", tmp_path / "run", *settings, command=NEW_PROCESS)
    assert "--compile: compilation failed on this machine (InvalidCxxCompiler)" in text
    assert text.endswith("Use --compile auto or --compile off.")


@pytest.mark.parametrize("network", ["mlp", "conv", "resnet"])
def test_bfloat16_stays_near_float32(network: str) -> None:
    """At the same noise the loss is within 3 thousandths; the optimizer's state has 32 bits."""
    config = {"encoder": network, "decoder": network}
    model, objective = made(**config)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x = images(64)
    losses = []
    for precision in (torch.float32, torch.bfloat16):
        model.precision = precision
        torch.manual_seed(0)
        terms = model.terms(x, None, 1)
        group = terms.groups[0]
        assert {t.dtype for t in (terms.log_px, group.z, group.kl, group.log_q)} == {torch.float32}
        loss, _ = objective(terms)
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=3e-3)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    state = [t for one in optimizer.state.values() for t in one.values()]
    assert {t.dtype for t in [*state, *model.parameters()]} == {torch.float32}
