"""What is left open is found; a batch that does not fit goes through in parts; compiled and bfloat16 steps hold."""

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from command import NEW_PROCESS, mistake, rings
from vaekit.config.config import settings_classes
from vaekit.config.overrides import resolve
from vaekit.config.presets import PRESETS
from vaekit.data.decoding.pool import cores
from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import open_pack
from vaekit.errors import UserError
from vaekit.models.builder import build
from vaekit.models.terms import Group, Objective, Terms
from vaekit.models.vae import VAE
from vaekit.training.auto_tune import resolve_auto
from vaekit.training.loop import evaluate, values
from vaekit.training.optimizers import make_optimizer
from vaekit.training.plan import Plan, TrainRequest, make_plan
from vaekit.training.session import run_training
from vaekit.training.step import Progress, compute_gradients, make_loss_fn, make_train_step
from vaekit.utils.cuda_graphs import CudaGraph
from vaekit.utils.device import matmul_precision

SMALL: dict[str, Any] = {"encoder": "mlp", "decoder": "mlp", "latents": 3, "batch_size": 16}


def made(**settings: Any) -> tuple[VAE, Objective]:
    return build(resolve(SMALL | settings), (1, 12, 12), images=64)


def images(count: int = 16) -> torch.Tensor:
    return torch.from_numpy(rings(count, 12)).permute(0, 3, 1, 2) / 255


class Small:
    """A score whose memory suffices for so many images only."""

    def __init__(self, model: VAE, objective: Objective, most: int, error: RuntimeError) -> None:
        self.score, self.most, self.error = make_loss_fn(model, objective), most, error

    def __call__(self, x: torch.Tensor, y: Any, epoch: float) -> Any:
        loss, report = self.score(x, y, epoch)
        if len(x) > self.most:
            loss.backward()  # as where it runs out in the middle of the way back: half a gradient is there
            raise self.error
        return loss, report


def weights_gradient(model: VAE) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def little(x: torch.Tensor, most: int) -> torch.Tensor:
    if len(x) > most:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return x


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_a_batch_that_does_not_fit_goes_through_in_parts_with_the_same_gradient(error: RuntimeError) -> None:
    """With a decoder that does not look at z, so that the noise, which is other, does not matter."""
    model, objective = made(ema=0)
    reading: torch.Tensor = model.decoder.layers.first.weight  # type: ignore[union-attr, assignment]
    torch.nn.init.zeros_(reading.requires_grad_(False))
    parameters, x = list(model.parameters()), images(15)
    whole, micro_batches = compute_gradients(
        make_loss_fn(model, objective), x, None, 0.0, parameters, 1, objective.supports_accumulation
    )
    expected = weights_gradient(model)
    assert micro_batches == 1
    small = Small(model, objective, 4, error)
    found, micro_batches = compute_gradients(small, x, None, 0.0, parameters, 1, objective.supports_accumulation)
    assert micro_batches == 4  # of 4, 4, 4 and 3 images
    torch.testing.assert_close(weights_gradient(model), expected, rtol=1e-4, atol=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-4)


def test_held_out_images_that_do_not_fit_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training has kept its memory; what it leaves holds 5 of the 16 images of a batch."""
    model, objective = made()
    config = resolve(SMALL)
    batches = ImageLoader(open_pack(rings(400, 12), config.data, quiet=True), config.data, 16, 0, torch.device("cpu"))
    expected = evaluate(model, batches, "validation", objective, 0)
    monkeypatch.setattr(VAE, "prepare_target", lambda _, x: little(x, 5))
    progress = Progress()
    found = evaluate(model, batches, "validation", objective, 0, partial(values, model, objective), progress)
    assert (progress.micro_batches, progress.eval_micro_batches) == (1, 4)
    assert found["reconstruction"] == pytest.approx(expected["reconstruction"], rel=0.05)  # by other noise
    assert found["kl"] == pytest.approx(expected["kl"], rel=1e-5)


@pytest.mark.parametrize("own", [None, torch.nn.BatchNorm2d(1)])
def test_what_follows_the_batches_takes_them_whole(own: torch.nn.Module | None) -> None:
    """A noise level, and the averages of a module of one's own."""
    model, objective = made(likelihood={"kind": "gaussian", "sigma": "fixed" if own else "optimal"})
    if own is not None:
        model.encoder.add_module("own", own)
    settings = resolve(SMALL).training
    train_step = make_train_step(model, objective, torch.optim.SGD(model.parameters(), 1e-3), settings, Progress())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="looks at all of it at once"):
        patch.setattr(VAE, "prepare_target", lambda _, x: little(x, 4))
        train_step(images(), None, math.inf)


def test_an_optimizer_whose_averages_do_not_fit_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective = made()
    settings = resolve(SMALL).training
    train_step = make_train_step(model, objective, make_optimizer(model.parameters(), settings), settings, Progress())
    before = torch.zeros_like
    monkeypatch.setattr(torch, "zeros_like", lambda like, **how: before(little(like, 100), **how))
    with pytest.raises(UserError, match="--optimizer sgd"):
        train_step(images(), None, math.inf)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    model, objective = made()
    small = Small(model, objective, 4, RuntimeError("a fault of ours"))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        compute_gradients(small, images(), None, 0.0, list(model.parameters()), 1, objective.supports_accumulation)


@pytest.mark.parametrize(
    ("settings", "most", "said"),
    [
        ({"objective": "mmd"}, 4, "looks at all of it at once"),
        ({"objective": {"free_bits": 0.1}}, 4, "looks at all of it at once"),
        ({}, 0, "not even one image does"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(settings: dict[str, Any], most: int, said: str) -> None:
    model, objective = made(**settings)
    small = Small(model, objective, most, torch.OutOfMemoryError("out of memory"))
    with pytest.raises(UserError, match=said) as refused:
        compute_gradients(small, images(), None, 0.0, list(model.parameters()), 1, objective.supports_accumulation)
    assert "--batch-size" in str(refused.value)


@pytest.mark.parametrize("kind", [*settings_classes("objective"), "free_bits", "capacity"])
def test_a_divisible_objective_is_the_mean_over_equal_parts(kind: str) -> None:
    """At the same z: that of the whole batch, and that of its halves."""
    objective: Any = kind
    x = images(16)
    x[8:] = 0
    if kind in ("free_bits", "capacity"):  # at the value of the whole batch, which those of the halves lie around
        model, _ = made()
        group = model.terms(x).groups[0]
        assert group.kl_per_latent is not None
        per_latent = group.kl_per_latent.mean(0)
        objective = {kind: (per_latent[0] if kind == "free_bits" else per_latent.sum()).item()}
    model, given = made(objective=objective)
    with torch.no_grad():
        whole = model.terms(x, None, given.samples)
        values = [given(whole)[0].item()]
        for rows in (slice(0, 8), slice(8, 16)):
            z = whole.groups[0].z[:, rows]
            log_px = model.decode(z, None, x[rows]).log_prob(x[rows])
            torch.manual_seed(0)  # of what `mmd` draws
            values.append(given(Terms(log_px, (Group(z, model.encode(x[rows]), whole.groups[0].p),)))[0].item())
    assert math.isclose(values[0], sum(values[1:]) / 2, rel_tol=1e-6) == given.supports_accumulation, values


LITTLE = """
import resource, sys, numpy as np
from vaekit.training.plan import TrainRequest
from vaekit.training.session import run_training
from pathlib import Path
images = np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), np.uint8)
small = {"kind": "mlp", "hidden": 16}
settings = dict(encoder=small, decoder=small, latents=4, batch_size=64, epochs=1, threads=1, precision="32",
                compile="off", objective={"kind": "iwae", "samples": 128})
request = TrainRequest(images, (settings,), out=Path(sys.argv[1]))
import vaekit.training.step as step
before = step.compute_gradients
def compute_gradients(*arguments):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (230 << 20), -1))
    try:
        return before(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
step.compute_gradients = gradients
run_training(request)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
def test_a_processor_whose_memory_does_not_suffice_trains_in_parts(tmp_path: Path) -> None:
    """64 images with 128 samples of 3,072 pixels: 100 MB for each tensor of their size, of which 230 MB hold two."""
    out = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", LITTLE, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "does not fit in the memory of cpu: it goes through in" in done.stdout
    states = sorted(out.glob("checkpoints/*/state.json"))
    assert json.loads(states[-1].read_text())["progress"]["micro_batches"] > 1


# --- What is left open -----------------------------------------------------------------------------------------------


def settled(**settings: Any) -> Plan:
    return resolve_auto(make_plan(TrainRequest(rings(400, 12), (SMALL | settings,), quiet=True)))


def test_more_threads_than_cores_are_told_of() -> None:
    assert "hold each other up: leave --threads out" in settled(threads=cores() + 1).lines[-1]
    assert settled(threads=1).lines[-1].startswith("Computing on cpu, 1 thread, ")


def test_a_batch_size_is_found_and_a_resumed_run_keeps_it(tmp_path: Path) -> None:
    asked = {"encoder": "mlp", "decoder": "mlp", "latents": 3, "batch_size": "auto"}
    data, out = rings(2000, 12), tmp_path / "run"
    run_training(TrainRequest(data, (asked | {"epochs": 1},), out=out, quiet=True))
    record = json.loads((out / "config.json").read_text())
    found = record["batch_size"]
    assert found in (32, 64)  # twice 64 would leave fewer than 20 steps of 1,800 images
    assert record["config"]["training"]["batch_size"] == "auto"
    said = (out / "log.txt").read_text()
    assert f"Batch size: {found} images a step" in said and "Not compiled: the steps take about" in said
    record["batch_size"] = 48  # a size that is never tried: it is read, not found anew
    (out / "config.json").write_text(json.dumps(record))
    plan = resolve_auto(make_plan(TrainRequest(data, (asked | {"epochs": 2},), out=out, resume=True, quiet=True)))
    assert plan.config.training.batch_size == plan.record["batch_size"] == 48


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({32: 1.0, 64: 1.0, 128: 1.0, 256: 1.0}, 256),  # a step takes as long whatever the batch
        ({32: 1.0, 64: 1.1, 128: 2.2, 256: 4.4}, 64),  # as long as its images
        ({32: 1.0, 64: 1.9, 128: 1.9, 256: 1.9}, 32),  # twice the images that cost nearly twice as much
        ({32: 1.0, 64: 1.0, 128: math.inf}, 64),  # does not fit in the memory
    ],
)
def test_a_batch_is_doubled_as_long_as_that_pays(
    seconds: dict[int, float], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaekit.training.auto_tune._seconds", lambda _, size, *__: seconds[size])
    plan = make_plan(TrainRequest(rings(6000, 12), (SMALL | {"batch_size": "auto", "compile": "off"},), quiet=True))
    assert (
        resolve_auto(plan).config.training.batch_size == expected
    )  # 256 is the most that leaves 5,400 images 20 steps


def test_on_another_machine_all_but_the_batch_size_is_found_anew(tmp_path: Path) -> None:
    """As of a run that was begun on another processor."""
    data, out = rings(400, 12), tmp_path / "run"
    asked = SMALL | {"batch_size": "auto"}
    run_training(TrainRequest(data, (asked | {"epochs": 1},), out=out, quiet=True))
    record = json.loads((out / "config.json").read_text())
    record |= {"hardware": "another processor", "precision": "bf16", "compile": "on", "batch_size": 48}
    (out / "config.json").write_text(json.dumps(record))
    plan = resolve_auto(make_plan(TrainRequest(data, (asked | {"epochs": 2},), out=out, resume=True, quiet=True)))
    found = plan.config.training
    assert (found.precision, found.compile, found.batch_size) == ("32", "off", 48)
    assert any("Not the same bit for bit as without the break: hardware another" in line for line in plan.lines)


def test_a_run_begun_on_a_gpu_that_is_gone_goes_on(tmp_path: Path) -> None:
    data, out = rings(400, 12), tmp_path / "run"
    run_training(TrainRequest(data, (SMALL | {"epochs": 1},), out=out, quiet=True))
    record = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(record | {"device": "cuda", "precision": "tf32"}))
    plan = resolve_auto(make_plan(TrainRequest(data, (SMALL | {"epochs": 2},), out=out, resume=True, quiet=True)))
    assert (str(plan.device), plan.config.training.precision) == ("cpu", "32")


def test_batches_that_do_not_fit_are_not_tried_further(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """A memory for 100 images: 128 would go through in parts, which is not what is looked for, and nothing is said."""

    monkeypatch.setattr(VAE, "prepare_target", lambda _, x: little(x, 100))
    plan = make_plan(TrainRequest(rings(4000, 12), (SMALL | {"batch_size": "auto"},), quiet=True))
    assert resolve_auto(plan).config.training.batch_size in (32, 64)
    assert "does not fit" not in caplog.text


def test_tf32_is_for_a_gpu_that_has_it() -> None:
    with pytest.raises(UserError, match="NVIDIA GPUs of 2020 or later, and this run is on cpu"):
        settled(precision="tf32", device="cpu")
    before = torch.backends.cudnn.allow_tf32
    with matmul_precision(tf32=not before):
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (not before)
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.allow_tf32 == before and not torch.backends.cudnn.deterministic


# --- By construction for a GPU ---------------------------------------------------------------------------------------

ASKING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "_unique2",
    "lift_fresh",
    "bincount",
}


class Listening(TorchDispatchMode):
    """Notes every operation whose result, or shape, a processor would wait for, and tensors made of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ())
        )
        if name in ASKING or by_mask:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_asks_nothing_of_its_device(preset: str) -> None:
    """So that a GPU is never waited for, and that the step can be recorded."""
    config = resolve({"batch_size": 16}, preset=preset)
    model, objective = build(config, (1, 28, 28), classes=4, images=224)
    train_step = make_train_step(
        model, objective, make_optimizer(model.parameters(), config.training), config.training, Progress()
    )
    x = torch.from_numpy(rings(16, 28)).permute(0, 3, 1, 2) / 255
    y = torch.arange(16) % 4 if model.classes else None
    train_step(x, y, math.inf)
    with Listening() as heard:
        train_step(x, y, math.inf)
    assert heard.asked == []


def test_what_asks_is_heard() -> None:
    with Listening() as heard:
        x = torch.tensor([1.0, 2.0])
        x[x > 1].sum().item()
    assert heard.asked == ["lift_fresh", "index", "_local_scalar_dense"]


def test_away_from_an_nvidia_gpu_every_call_is_made() -> None:
    replay = CudaGraph(lambda x: x + torch.randn_like(x))
    torch.manual_seed(1)
    found = [replay(torch.zeros(4)) for _ in range(8)]
    torch.manual_seed(1)
    assert torch.equal(torch.stack(found), torch.stack([torch.randn(4) for _ in range(8)]))


# --- By device -------------------------------------------------------------------------------------------------------


def test_convolutions_are_taken_in_bfloat16_where_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    convolutions = {"encoder": "conv", "decoder": "conv"}
    for there, kind, expected in ((True, convolutions, "bf16"), (True, {}, "32"), (False, convolutions, "32")):
        monkeypatch.setattr("vaekit.training.auto_tune.fast_bf16", lambda _, there=there: there)
        assert settled(**kind).config.training.precision == expected
    assert settled(**convolutions, precision="bf16").config.training.precision == "bf16"
    assert settled(**convolutions, precision="32").config.training.precision == "32"


def test_a_long_run_tries_to_compile_and_keeps_what_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.training.auto_tune.COST", 0.0)
    for eager, compiled, expected in ((1.0, 0.5, "on"), (0.5, 1.0, "off")):
        times = iter([eager, compiled])
        monkeypatch.setattr("vaekit.training.auto_tune._seconds", lambda *_, times=times: next(times))
        plan = settled()
        assert plan.config.training.compile == plan.record["compile"] == expected
        assert f"{eager / compiled:.2f} times as fast" in plan.lines[-2]


def test_a_run_that_will_be_stopped_soon_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.training.auto_tune._seconds", lambda *_: 100.0)
    plan = resolve_auto(make_plan(TrainRequest(rings(400, 12), (SMALL,), quiet=True)), longest=1.0)
    assert plan.config.training.compile == "off" and "take about 60 s" in plan.lines[-2]


def test_where_compiling_fails_training_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.training.auto_tune.COST", 0.0)

    def broken(*_: Any, **__: Any) -> None:
        raise torch._dynamo.exc.InternalTorchDynamoError("no compiler")

    monkeypatch.setattr("torch.compile", broken)
    plan = settled()
    assert plan.config.training.compile == "off"
    assert any("Not compiled: it failed here" in line for line in plan.lines)


def test_compiling_without_a_compiler_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    network = ("--encoder", "mlp", "--decoder", "mlp")
    said = mistake("train", "--out", tmp_path / "run", "--epochs", 1, "--compile", "on", *network, command=NEW_PROCESS)
    assert said == "vaekit: --compile on failed here (InvalidCxxCompiler): use --compile auto, or off."


# --- Compiled, and in bfloat16 ---------------------------------------------------------------------------------------


COMPILED = """
import torch
from vaekit.models.builder import build
from vaekit.config.overrides import resolve
from vaekit.training.step import compute_gradients, make_loss_fn
settings = {"encoder": "mlp", "decoder": "mlp", "latents": 3, "objective": {"warmup": 2, "beta": 3.0}}
model, objective = build(resolve(settings), (1, 12, 12))
parameters, x = list(model.parameters()), torch.rand(16, 1, 12, 12)
plain, compiled = make_loss_fn(model, objective), make_loss_fn(model, objective, compiled=True)
for epoch in (0.5, 1.5, 2.0, 2.5, 7.0):
    found = []
    for loss_fn in (plain, compiled):
        torch.manual_seed(1)
        loss = compute_gradients(loss_fn, x, None, epoch, parameters, 1, True)[0]["loss"].detach()
        found.append(torch.cat([loss[None], *(p.grad.flatten() for p in parameters)]))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)
print("graphs:", torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


@pytest.mark.slow
def test_a_compiled_step_is_the_step() -> None:
    """In a process without the checks of shapes, at which the compiler would stop. Schedules that still rise are no
    part of the one graph."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "graphs: 1\n" in done.stdout


def test_of_a_model_with_flows_the_networks_are_compiled() -> None:
    model, objective = made(prior={"kind": "flow", "steps": 2, "hidden": 8})
    make_loss_fn(model, objective, compiled=True)
    assert model.encoder._compiled_call_impl is not None and model.prior._compiled_call_impl is None


@pytest.mark.parametrize("network", ["mlp", "conv", "resnet"])
def test_bfloat16_stays_near_float32_and_leaves_everything_else_in_it(network: str) -> None:
    """The loss of one model at the same noise: within 3 thousandths; all of the optimizer's state in 32 bits."""
    config = {"encoder": network, "decoder": network}
    model, objective = made(**config)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x = images(64)
    losses = []
    for precision in (torch.float32, torch.bfloat16):
        model.precision = precision
        torch.manual_seed(0)
        terms = model.terms(x, None, 1)
        assert {t.dtype for t in (terms.log_px, terms.groups[0].z, terms.groups[0].kl, terms.groups[0].log_q)} == {
            torch.float32
        }
        loss, _ = objective(terms)
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=3e-3)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    state = [t for one in optimizer.state.values() for t in one.values()]
    assert {t.dtype for t in [*state, *model.parameters()]} == {torch.float32}
