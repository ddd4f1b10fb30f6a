"""Resolves precision, threads, batch size and compile choice where they are open: by the device, or by a
trial."""

import copy
import math
import os
import time
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from vaekit.config.overrides import override
from vaekit.data.decoding.pool import cores
from vaekit.data.loader import ImageLoader
from vaekit.errors import OutOfMemory, UserError, setting
from vaekit.models.objectives.perceptual import WithPerceptualLoss
from vaekit.models.terms import Labels
from vaekit.training.optimizers import compute_dtype
from vaekit.training.plan import AUTO_SETTINGS, Plan
from vaekit.training.step import TrainStep
from vaekit.utils.device import fast_bf16, fast_tf32, fork_rng, matmul_precision
from vaekit.utils.logging import log, muted, status

SMALLEST_BATCH = 32
BATCH_SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
"""Batch sizes that are tried after the smallest one."""
MIN_STEPS_PER_EPOCH = 20
"""A larger batch must leave an epoch so many steps."""
MIN_BATCH_GAIN = 1.1
"""A batch of twice the size has to raise the images per second by this factor."""
BUSY_LOAD = 0.5
"""Programs that wait for a core, on average over a minute, from which the processor is taken to be in use."""
MIN_THREAD_GAIN = 1.5
"""One thread has to be so many times as fast as one per core: the other program may end soon."""
MIN_COMPILE_GAIN = 1.05
"""A compiled step has to be so many times as fast in a trial: less is noise."""
COMPILE_SECONDS = 90.0
"""What compiling may take: 74 s were measured for the networks of `best` on two cores."""
COMPILE_SAVING = {"cpu": 0.1, "cuda": 0.3}
"""The share of the time that compiling can be hoped to save."""
TRIAL_STEPS = 12
TRIAL_SECONDS = 2.0
"""A trial ends after so many steps, or so many seconds."""


def resolve_auto(plan: Plan, max_minutes: float = math.inf) -> Plan:
    """The plan with every "auto" resolved; a resumed run keeps its choices.

    Raises:
        UserError: a precision that the device does not have.
    """
    plan = _set(plan, precision=_choose_precision(plan))
    plan = _with_fewer_threads(plan)
    settings = plan.config.training
    if settings.perceptual:
        size, dtype = plan.pack.shape[1:], compute_dtype(settings)
        objective = WithPerceptualLoss(plan.objective, settings.perceptual, size, dtype)
        plan = replace(plan, objective=objective)
    if plan.metadata.batch_size == "auto":
        with status("Checking the speed of batch sizes"):
            plan = _set(plan, batch_size=_choose_batch_size(plan))
        log.info(f"Batch size: {plan.metadata.batch_size} (fastest in a trial)")
    if plan.metadata.compile == "auto":
        choice, reason = _choose_compile(plan, max_minutes)
        plan = _set(plan, compile=choice)
        log.log(20 if choice == "on" else 10, f"torch.compile: {choice}, {reason}")
    threads = plan.metadata.threads
    precision = {"32": "float32", "bf16": "bfloat16"}.get(plan.metadata.precision, "TF32")
    used = f" ({threads} thread{'' if threads == 1 else 's'})" if plan.device.type == "cpu" else ""
    log.info(f"Device: {plan.device}{used}, {precision}. Seed {plan.metadata.seed}.")
    if threads > cores():
        log.info(
            f"{setting('threads', threads)} exceeds the {cores()} available cores and slows training down. "
            f"Omit {setting('threads')} to use one per core."
        )
    return plan


def _set(plan: Plan, **chosen: object) -> Plan:
    metadata = plan.metadata.model_copy(update=chosen)
    config = override(plan.config, {name: getattr(metadata, name) for name in AUTO_SETTINGS})
    return replace(plan, metadata=metadata, config=config)


def _choose_precision(plan: Plan) -> str:
    precision = plan.metadata.precision
    if precision == "auto":
        modules = (*plan.model.encoder.modules(), *plan.model.decoder.modules())
        if fast_bf16(plan.device) and any(isinstance(module, nn.Conv2d) for module in modules):
            return "bf16"
        return "tf32" if fast_tf32(plan.device) else "32"
    if precision == "tf32" and not fast_tf32(plan.device):
        if plan.resumed:
            return "32"
        raise UserError(
            f"tf32 needs an NVIDIA GPU of 2020 or later, and this run is on {plan.device}.",
            f"Use {setting('precision', 'auto')}.",
            "precision",
        )
    return precision


def _with_fewer_threads(plan: Plan) -> Plan:
    """The plan with one thread where the number is open and another program uses the cores: threads that wait
    for each other after every layer can then be many times as slow as a single one."""
    threads, settings = plan.metadata.threads, plan.config.training
    is_open = not plan.resumed and not settings.threads and threads > 1 and plan.device.type == "cpu"
    if not is_open or not hasattr(os, "getloadavg") or os.getloadavg()[0] < BUSY_LOAD:
        return plan
    size = min(plan.pack.count("train"), SMALLEST_BATCH)
    if settings.batch_size != "auto":
        size = int(settings.batch_size)
    with status("Checking the speed of threads"):
        several = _step_seconds(plan, size)
        torch.set_num_threads(1)
        gain = several / _step_seconds(plan, size)
    if not gain >= MIN_THREAD_GAIN:
        torch.set_num_threads(threads)
        return plan
    log.info(
        f"Other programs use the processor: 1 thread is {gain:.1f} times as fast as {threads} in a trial. "
        f"To use {threads}: {setting('threads', threads)}."
    )
    return replace(plan, metadata=plan.metadata.model_copy(update={"threads": 1}))


def _choose_batch_size(plan: Plan) -> int:
    """Double it as long as that pays, fits in memory and leaves an epoch enough steps."""
    count = plan.pack.count("train")
    best, speed = min(SMALLEST_BATCH, count), 0.0
    for size in [best, *(size for size in BATCH_SIZES if size * MIN_STEPS_PER_EPOCH <= count)]:
        images_per_second = size / _step_seconds(plan, size)
        if not images_per_second > MIN_BATCH_GAIN * speed:
            break
        best, speed = size, images_per_second
    return best


def _choose_compile(plan: Plan, max_minutes: float) -> tuple[str, str]:
    """Whether to compile, "on" or "off", and why."""
    settings = plan.config.training
    size = int(settings.batch_size)
    steps = settings.epochs * max(1, plan.pack.count("train") // size)
    with status("Checking the speed of a training step"):
        eager = _step_seconds(plan, size)
    if math.isinf(eager):
        return "off", "a batch does not fit in memory at once"
    seconds = min(steps * eager if settings.epochs else math.inf, 60 * max_minutes)
    if seconds * COMPILE_SAVING.get(plan.device.type, 0) < COMPILE_SECONDS:
        return "off", "the run is too short to benefit"
    try:
        with status("Testing torch.compile (up to a minute)"):
            compiled = _step_seconds(plan, size, "on")
    except Exception as error:  # of many kinds: no compiler, an operation it does not know
        return "off", f"it failed on this machine ({type(error.__cause__ or error).__name__})"
    gain = eager / compiled
    return ("on" if gain > MIN_COMPILE_GAIN else "off"), f"{gain:.2f} times as fast in a trial"


def step_times(plan: Plan, size: int, compiled: str = "off", divided: bool = False) -> list[float]:
    """Seconds of a few steps after the first; unless it may be `divided`, none if a batch does not fit in
    memory at once.

    Raises:
        OutOfMemory: a batch cannot be divided.
    """
    settings, device = plan.config.training.model_copy(update={"compile": compiled}), plan.device
    model = copy.deepcopy(plan.model).to(device).train()
    model.precision = compute_dtype(settings)
    loader = ImageLoader(plan.pack, plan.config.data, size, settings.seed, device)
    with fork_rng(), matmul_precision(tf32=settings.precision == "tf32"), muted():
        train_step = TrainStep(model, plan.objective, settings, loader.steps_per_epoch)
        x, y = next(loader.train(0))
        return trial(train_step, x, y if model.classes else None, divided)


def trial(train_step: TrainStep, x: Tensor, y: Labels | None, divided: bool = False) -> list[float]:
    """Seconds of a few steps on a batch after the first; unless it may be `divided`, none if it has to be."""
    times: list[float] = []
    while len(times) <= TRIAL_STEPS and sum(times[1:]) < TRIAL_SECONDS:
        start = time.perf_counter()
        train_step.optimize(x, y, math.inf)["loss"].item()  # which waits for a GPU
        times.append(time.perf_counter() - start)
        if train_step.micro_batches > 1 and not divided:
            return []
    return times[1:]


def _step_seconds(plan: Plan, size: int, compiled: str = "off") -> float:
    """The shortest of a few steps; infinite if a batch does not fit in memory at once."""
    with suppress(OutOfMemory):
        return min(step_times(plan, size, compiled), default=math.inf)
    return math.inf
