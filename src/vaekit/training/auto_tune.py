"""Resolves precision, batch size and compile choice where they are "auto": by the device, or by a trial."""

import copy
import math
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vaekit.config.config import Config
from vaekit.config.overrides import override
from vaekit.data.decoding.pool import cores
from vaekit.data.loader import ImageLoader
from vaekit.errors import OutOfMemory, UserError, setting
from vaekit.models.flow_matching import VelocityError
from vaekit.training.optimizers import compute_dtype
from vaekit.training.plan import AUTO_SETTINGS, Plan
from vaekit.training.second_stage import flow_matching_model, training_overrides
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
MIN_COMPILE_GAIN = 1.05
"""A compiled step has to be so many times as fast in a trial: less is noise."""
COMPILE_SECONDS = 60.0
"""What compiling may take."""
COMPILE_SAVING = {"cpu": 0.05, "cuda": 0.3}
"""The share of the time that compiling can be hoped to save."""
DEFAULT_MINUTES = 20.0
"""Time for a run whose epochs are not given."""
SECOND_STAGE_SHARE = 0.6
"""Share of the time of training that the second of two stages gets."""
STEP_OVERHEAD = 1.75
"""Time for a step in training, with validation, pictures and checkpoints, over the shortest of a trial: 1.72
in the first stage and 1.82 in the second, on 2,700 images of 64x64 on two cores of a shared machine."""
END_SECONDS, END_SHARE = 35.0, 0.05
"""The larger of these is set aside for what comes after the last step: seconds, share of all."""
MIN_BUDGET = 0.2
"""Share of the time that is trained in any case."""
MAX_PASSES = 300
"""Passes over the images, at most: with more, a model would memorize a few images."""
SHORTEST_EPOCH, LONGEST_EPOCH = 5.0, 30.0
"""Seconds between two validations where epochs are chosen here."""
TRIAL_STEPS = 6
TRIAL_SECONDS = 2.0
"""A trial ends after so many steps, or so many seconds."""


def resolve_auto(plan: Plan, max_minutes: float = math.inf) -> Plan:
    """The plan with every "auto" resolved; a resumed run keeps its choices.

    Raises:
        UserError: a precision that the device does not have.
    """
    plan = _set(plan, precision=_choose_precision(plan))
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


def resolve_lengths(plan: Plan, minutes: float | None, start: float) -> Plan:
    """The plan with as many epochs, and steps of the second stage, as fit in `minutes` since `start`, where
    they are open.

    A resumed run keeps what was chosen.
    """
    settings, flow_matching = plan.config.training, plan.config.flow_matching
    two = plan.config.latent_prior == "flow_matching"
    if settings.epochs and (flow_matching.steps or not two):
        return plan
    with status("Measuring the speed of training"):
        first = STEP_OVERHEAD * _step_seconds(plan, int(settings.batch_size), settings.compile)
        second = STEP_OVERHEAD * _second_stage_seconds(plan) if two else math.inf
    steps_per_pass = max(1, plan.pack.count("train") // int(settings.batch_size))
    changes: dict[str, Any] = {}
    share = SECOND_STAGE_SHARE if two else 0.0
    if settings.epochs:
        seconds = settings.epochs * (settings.steps_per_epoch or steps_per_pass) * first * share / (1 - share)
    else:
        total = 60 * (DEFAULT_MINUTES if minutes is None else minutes)
        budget = max(
            MIN_BUDGET * total, total - (time.perf_counter() - start) - max(END_SECONDS, END_SHARE * total)
        )
        seconds = share * budget
        steps = max(1, min(int((budget - seconds) / first), MAX_PASSES * steps_per_pass))
        per_epoch = settings.steps_per_epoch or min(steps, _steps_per_epoch(steps_per_pass, first))
        changes = {"epochs": max(1, round(steps / per_epoch)), "steps_per_epoch": per_epoch}
    if two and not flow_matching.steps:
        images = MAX_PASSES * plan.pack.count("train")
        most = max(1, images // flow_matching.batch_size)
        changes["flow_matching"] = {"steps": max(1, min(int(seconds / second), most))}
    config = override(plan.config, changes)
    log.info(_describe_lengths(config, steps_per_pass, first, second))
    return replace(
        plan,
        config=config,
        metadata=plan.metadata.model_copy(update={"config": override(plan.metadata.config, changes)}),
    )


def _describe_lengths(config: Config, steps_per_pass: int, first: float, second: float) -> str:
    """The plan with times, in a sentence."""
    settings, per_epoch = config.training, config.training.steps_per_epoch or steps_per_pass
    steps = settings.epochs * per_epoch
    passes = steps / steps_per_pass
    text = f"Plan: {settings.epochs:,} epochs of {per_epoch:,} steps ({passes:.1f} passes over the images), "
    text += f"about {_minutes(steps * first)}"
    if config.latent_prior == "flow_matching":
        steps = config.flow_matching.steps
        text += f"; then {steps:,} steps of flow matching, about {_minutes(steps * second)}"
    return f"{text}; then the report."


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _steps_per_epoch(steps_per_pass: int, step_seconds: float) -> int:
    """Steps between two validations: a pass over the images, unless that takes too long or a moment only."""
    longest = max(1, int(LONGEST_EPOCH / step_seconds))
    shortest = math.ceil(SHORTEST_EPOCH / step_seconds)
    if steps_per_pass >= shortest:
        return min(steps_per_pass, longest)
    return steps_per_pass * math.ceil(shortest / steps_per_pass)


def _second_stage_seconds(plan: Plan) -> float:
    """The shortest of a few steps of the second stage after the first."""
    settings = plan.config.training.model_copy(update={**training_overrides(plan), "epochs": 1})
    model = flow_matching_model(plan).to(plan.device).train()
    model.precision = compute_dtype(settings)
    x = torch.zeros(int(settings.batch_size), 2 * model.latents, device=plan.device)
    y = torch.zeros(len(x), dtype=torch.long, device=plan.device)
    times: list[float] = []
    with fork_rng(), muted():
        objective: Any = VelocityError()
        train_step = TrainStep(model, objective, settings, 1)
        while len(times) <= TRIAL_STEPS and sum(times[1:]) < TRIAL_SECONDS:
            start = time.perf_counter()
            train_step.optimize(x, y if model.classes > 1 else None, math.inf)["loss"].item()
            times.append(time.perf_counter() - start)
    return min(times[1:])


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


def _step_seconds(plan: Plan, size: int, compiled: str = "off") -> float:
    """The shortest of a few steps after the first; infinite if a batch does not fit in memory at once."""
    settings, device = plan.config.training.model_copy(update={"compile": compiled}), plan.device
    model = copy.deepcopy(plan.model).to(device).train()
    model.precision = compute_dtype(settings)
    loader = ImageLoader(plan.pack, plan.config.data, size, settings.seed, device)
    times: list[float] = []
    with fork_rng(), matmul_precision(tf32=settings.precision == "tf32"), muted(), suppress(OutOfMemory):
        train_step = TrainStep(model, plan.objective, settings, loader.steps_per_epoch)
        x, y = next(loader.train(0))
        labels = y if model.classes else None
        while len(times) <= TRIAL_STEPS and sum(times[1:]) < TRIAL_SECONDS:
            start = time.perf_counter()
            train_step.optimize(x, labels, math.inf)["loss"].item()  # which waits for a GPU
            times.append(time.perf_counter() - start)
            if train_step.micro_batches > 1:
                return math.inf
        return min(times[1:])
    return math.inf
