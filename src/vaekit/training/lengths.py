"""How long to train where that is open: from the time there is and the measured speed."""

import math
import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from vaekit.config.config import Config
from vaekit.config.overrides import override
from vaekit.data.sources.conditions import width_of
from vaekit.errors import setting
from vaekit.models.builder import build
from vaekit.models.flow_matching import VelocityError
from vaekit.runs.unfinished import MIN_STEPS
from vaekit.training.auto_tune import step_times, trial
from vaekit.training.optimizers import compute_dtype
from vaekit.training.plan import Plan
from vaekit.training.request import TrainRequest, gives
from vaekit.training.second_stage import EPOCH_STEPS, flow_matching_model, training_overrides
from vaekit.training.step import TrainStep
from vaekit.utils.device import fork_rng
from vaekit.utils.logging import log, muted, status

DEFAULT_MINUTES = 20.0
"""Time for a run whose epochs are not given."""
SECOND_STAGE_SHARE = 0.6
"""Share of the time of training that the second of two stages gets, at most."""
STEP_OVERHEAD = {"autoencoder": 1.2, "flow_matching": 1.3}
"""By stage: time for a step in training, with validation, pictures and checkpoints, over the median of a
trial."""
END_SECONDS, END_SHARE = 25.0, 0.05
"""The larger of these is set aside for what comes after the last step: seconds, share of all."""
MIN_BUDGET = 0.2
"""Share of the time that is trained in any case."""
MAX_PASSES = 300
"""Passes over the images, at most: with more, a model would memorize a few images."""
SECOND_STAGE_PASSES, SECOND_STAGE_STEPS = 100, 1000
"""The larger of these is the most that the second of two stages gets, in passes and in steps, these in no
more than `MAX_PASSES`. Its validation loss is lowest after 50 to 80 passes over the photos and emoji of
benchmarks/folders. The first stage, which does not overfit with noise on the latents, gets the rest of the
time."""
SMALLEST_SIZE = 16
"""Pixels of the smaller side of images that are advised, at least."""
WIDTHS = {"autoencoder": (32, 48, 64, 96, 128), "flow_matching": (64, 96, 128, 192)}
"""By stage: channels that are tried in turn, the first in any case."""
WIDE_STEPS = {"autoencoder": 8000, "flow_matching": 6000}
"""By stage: steps that there have to be time and images for with more channels than the first. On the emoji
of benchmarks/folders 32 channels reached 25.2 dB in 1,800 steps and 26.1 dB in 4,500, and 96 channels, whose
steps take three to four times as long on two cores, 25.2 dB in 3,000."""
DETAIL_STEPS, DETAIL_COMPRESSION = 6000, 32
"""Steps of the second stage that there have to be time and images for with twice as many channels of the
latents, and numbers of an image for each latent, at least, before that. On the emoji of benchmarks/folders
new images of 20 minutes (8,500 steps) had KID 0.26 with 8 channels and 0.29 with 4, and reconstructions 26.6
and 24.6 dB."""
SHORTEST_EPOCH, LONGEST_EPOCH = 5.0, 30.0
"""Seconds between two validations where epochs are chosen here."""


def time_for_training(minutes: float, start: float) -> float:
    """Seconds left to train in, of `minutes` since `start`."""
    total = 60 * minutes
    left = total - (time.perf_counter() - start) - max(END_SECONDS, END_SHARE * total)
    return max(MIN_BUDGET * total, left)


def resolve_epochs(plan: Plan, request: TrainRequest, minutes: float, start: float) -> Plan:
    """The plan with networks as wide and as many epochs as suit `minutes` since `start`, or the first stage's
    share of them."""
    before, settings, latents = plan.config, plan.config.training, plan.config.latents
    two = plan.config.latent_prior == "flow_matching"
    budget = time_for_training(minutes, start)
    steps_per_pass = max(1, plan.pack.count("train") // int(settings.batch_size))
    most = MAX_PASSES * steps_per_pass
    with status("Measuring the speed of training"):
        second = 0.0
        if two:
            plan = _with_detail(plan, request, SECOND_STAGE_SHARE * budget)
            second = _second_stage_seconds(plan, budget)
        plan, step = _widest(plan, "autoencoder", budget - second, most, _widths_are_open(plan, request))
        if settings.compile == "on":
            step = _step_seconds(plan, "autoencoder", compiled="on")
    budget = time_for_training(minutes, start)
    steps = max(1, min(int((budget - second) / step), most))
    per_epoch = settings.steps_per_epoch or min(steps, _steps_per_epoch(steps_per_pass, step))
    epochs = max(1, round(steps / per_epoch))
    passes = epochs * per_epoch / steps_per_pass
    text = f"Plan: {epochs:,} epoch{'s' if epochs > 1 else ''} of {per_epoch:,} steps "
    text += f"({passes:.1f} passes over the images), about {_minutes(epochs * per_epoch * step)}"
    if two:
        text += f"; then flow matching on the latents, about {_minutes(budget - epochs * per_epoch * step)}"
    log.info(f"{text}; then the report.")
    if (channels := getattr(plan.config.encoder, "channels", 0)) > getattr(before.encoder, "channels", 0):
        fewer = setting("encoder.channels", WIDTHS["autoencoder"][0])
        log.info(f"There is time for networks with {channels} channels. For smaller ones: {fewer}.")
    if plan.config.latents != latents:
        fewer = setting("latents", str(latents))
        log.info(f"There is time for latents of {plan.config.latents}. For {latents}: {fewer}.")
    if epochs * per_epoch < MIN_STEPS and steps < most:
        more = math.ceil(minutes * MIN_STEPS / (epochs * per_epoch))
        advice = [setting("minutes", more)]
        if (size := min(plan.pack.shape[1:])) >= 2 * SMALLEST_SIZE:
            advice.append(f"{setting('size', size // 2)}, which is about four times as fast")
        few = f"{epochs * per_epoch:,} steps are few, and images will be rough."
        log.info(f"{few} Better: {' or '.join(advice)}.")
    return _with(plan, {"epochs": epochs, "steps_per_epoch": per_epoch})


def note_few_steps(plan: Plan) -> None:
    """Say so where the epochs that were asked for are only a few steps."""
    settings = plan.config.training
    per_epoch = settings.steps_per_epoch or max(1, plan.pack.count("train") // int(settings.batch_size))
    steps = settings.epochs * per_epoch
    if steps < MIN_STEPS:
        epochs = f"{settings.epochs:,} epoch{'s are' if settings.epochs > 1 else ' is'}"
        log.info(
            f"{epochs} {steps:,} step{'s' if steps > 1 else ''} only, and images will be rough: most models "
            "need several thousand."
        )


def resolve_second_stage(plan: Plan, request: TrainRequest, seconds: float) -> Plan:
    """The plan with a second stage as wide and of as many steps as suit `seconds`, where its steps are
    open."""
    settings = plan.config.flow_matching
    if settings.steps:
        return plan
    most = _most_of_second_stage(plan)
    open_width = settings.channels == WIDTHS["flow_matching"][0]
    open_width = open_width and not gives(request, "flow_matching", "channels")
    open_width = open_width and plan.metadata.from_run is None  # whose weights have a width
    with status("Measuring the speed of flow matching"):
        plan, step = _widest(plan, "flow_matching", seconds, most, open_width)
    steps = max(1, min(int(seconds / step), most))
    steps = max(steps // EPOCH_STEPS * EPOCH_STEPS, min(steps, EPOCH_STEPS))  # whole epochs
    channels = plan.config.flow_matching.channels
    size = f"{steps:,} steps with {channels} channels"
    log.info(f"Flow matching on the latents: {size}, about {_minutes(steps * step)}.")
    return _with(plan, {"flow_matching": {"steps": steps}})


def _second_stage_seconds(plan: Plan, budget: float) -> float:
    """What is set aside of `budget` seconds for the second stage: for the steps that are given, or at most
    for as many as there are images for."""
    steps, step = plan.config.flow_matching.steps, _step_seconds(plan, "flow_matching")
    if steps:
        return min(steps * step, (1 - MIN_BUDGET) * budget)
    return min(_most_of_second_stage(plan) * step, SECOND_STAGE_SHARE * budget)


def _most_of_second_stage(plan: Plan) -> int:
    count, size = plan.pack.count("train"), plan.config.flow_matching.batch_size
    few = min(SECOND_STAGE_STEPS, MAX_PASSES * count // size)
    return max(1, few, SECOND_STAGE_PASSES * count // size)


def _widths_are_open(plan: Plan, request: TrainRequest) -> bool:
    """Whether the channels of both networks are a choice of ours: they are not where weights of a run are
    taken."""
    networks = {"encoder": plan.config.encoder, "decoder": plan.config.decoder}
    return plan.metadata.from_run is None and all(
        part.kind == "dcae"
        and part.channels == WIDTHS["autoencoder"][0]
        and not gives(request, name, "channels")
        for name, part in networks.items()
    )


def _widest(plan: Plan, stage: str, seconds: float, most: int, is_open: bool) -> tuple[Plan, float]:
    """The plan with the most channels that leave time in `seconds` for enough of at most `most` steps, if
    channels are open, and the seconds of a step."""
    enough, step = WIDE_STEPS[stage], _step_seconds(plan, stage)
    for channels in WIDTHS[stage][1:] if is_open and most >= enough else ():
        if seconds / step < enough:
            break
        wider = _with_channels(plan, stage, channels)
        longer = _step_seconds(wider, stage)
        if seconds / longer < enough:
            break
        plan, step = wider, longer
    return plan, step


def _with_detail(plan: Plan, request: TrainRequest, seconds: float) -> Plan:
    """The plan with twice as many channels of the latents, if they are open, they are few for the images, and
    there is time in `seconds` for enough steps of the second stage."""
    given = [layer["latents"] for layer in request.settings if "latents" in layer]
    channels, *size = plan.config.latent_shape
    parts = plan.config.encoder, plan.config.decoder
    is_open = plan.metadata.from_run is None and (not given or given[-1] == "auto") and len(size) == 2
    is_open = is_open and all(part.kind == "dcae" for part in parts)
    numbers = math.prod(plan.pack.shape) / math.prod(plan.config.latent_shape)
    settings = plan.config.flow_matching
    most = MAX_PASSES * plan.pack.count("train") // settings.batch_size
    if not is_open or numbers < DETAIL_COMPRESSION or most < DETAIL_STEPS:
        return plan
    wider = _rebuilt(plan, {"latents": "x".join(map(str, (2 * channels, *size)))})
    steps = settings.steps or seconds / _step_seconds(wider, "flow_matching")
    return wider if steps >= DETAIL_STEPS else plan


def _with_channels(plan: Plan, stage: str, channels: int) -> Plan:
    if stage == "flow_matching":
        return _with(plan, {"flow_matching": {"channels": channels}})
    return _rebuilt(plan, {"encoder": {"channels": channels}, "decoder": {"channels": channels}})


def _rebuilt(plan: Plan, changes: dict[str, Any]) -> Plan:
    """The plan with other settings of the model."""
    changed, pack = _with(plan, changes), plan.pack
    count, conditions = pack.count("train"), width_of(pack.columns)
    model, _ = build(changed.config, pack.shape, len(pack.classes), count, conditions=conditions)
    return replace(changed, model=model)


def _step_seconds(plan: Plan, stage: str, compiled: str = "off") -> float:
    """The time of a step in training."""
    if stage == "flow_matching":
        return STEP_OVERHEAD[stage] * median(_second_stage_times(plan))
    times = step_times(plan, int(plan.config.training.batch_size), compiled, divided=True)
    return STEP_OVERHEAD[stage] * median(times)


def _with(plan: Plan, changes: dict[str, Any]) -> Plan:
    def changed(config: Config) -> Config:
        return override(config, changes)

    metadata = plan.metadata.model_copy(update={"config": changed(plan.metadata.config)})
    return replace(plan, config=changed(plan.config), metadata=metadata)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _steps_per_epoch(steps_per_pass: int, step_seconds: float) -> int:
    """Steps between two validations: a pass over the images, unless that takes too long or a moment only."""
    longest = max(1, int(LONGEST_EPOCH / step_seconds))
    shortest = math.ceil(SHORTEST_EPOCH / step_seconds)
    if steps_per_pass >= shortest:
        return min(steps_per_pass, longest)
    return steps_per_pass * math.ceil(shortest / steps_per_pass)


def _second_stage_times(plan: Plan) -> list[float]:
    """Seconds of a few steps of the second stage after the first."""
    settings = plan.config.training.model_copy(update={**training_overrides(plan), "epochs": 1})
    model = flow_matching_model(plan).to(plan.device).train()
    model.precision = compute_dtype(settings)
    x = torch.zeros(int(settings.batch_size), 2 * model.latents, device=plan.device)
    y = torch.zeros(len(x), dtype=torch.long, device=plan.device)
    if model.conditions:
        y = torch.zeros(len(x), model.conditions, device=plan.device)
    objective: Any = VelocityError()
    with fork_rng(), muted():
        return trial(TrainStep(model, objective, settings, 1), x, y)
