"""What --precision, --batch-size and --compile come to where they are left open: by the device, or by trying."""

import copy
import math
import time
from contextlib import suppress
from dataclasses import replace

from torch import nn

from vaekit.config.overrides import override
from vaekit.data.decoding.pool import cores
from vaekit.data.loader import ImageLoader
from vaekit.errors import UserError
from vaekit.models.vae import VAE
from vaekit.training.optimizers import compute_dtype, make_optimizer
from vaekit.training.plan import AUTO_SETTINGS, Plan
from vaekit.training.step import OutOfMemory, Progress, make_train_step
from vaekit.utils.device import fast_bf16, fast_tf32, fork_rng, matmul_precision
from vaekit.utils.logging import muted

SMALLEST, SIZES = 32, (64, 128, 256, 512, 1024, 2048, 4096)
"""Batch sizes that are tried."""


FEWEST = 20
"""Steps that an epoch is to keep."""


WORTH = 1.1
"""A batch of twice the size has to raise the images per second by this factor."""


GAIN = 1.05
"""How many times as fast a compiled step has to be in a trial: less is noise."""


COST, HOPED = 60.0, {"cpu": 0.05, "cuda": 0.3}
"""Seconds that compiling may take, and the share of the time that it can be hoped to save."""


TRIES, PATIENCE = 6, 2.0
"""Steps that are timed, and the seconds after which no further one is."""


def resolve_auto(plan: Plan, longest: float = math.inf) -> Plan:
    """The plan with nothing left open; a run that goes on keeps what was found at its beginning.

    Args:
        longest: minutes after which the run will be stopped.

    Raises:
        UserError: a precision that the device does not have.
    """
    found, lines = dict(plan.record), list(plan.lines)
    if found["precision"] == "auto":
        quick = fast_bf16(plan.device) and _convolutional(plan.model)
        found["precision"] = "bf16" if quick else "tf32" if fast_tf32(plan.device) else "32"
    elif found["precision"] == "tf32" and not fast_tf32(plan.device):
        if not plan.resumed:
            raise UserError(
                f"--precision tf32 is for NVIDIA GPUs of 2020 or later, and this run is on {plan.device}: "
                "use --precision auto."
            )
        found["precision"] = "32"
    plan = _with(plan, found)
    if found["batch_size"] == "auto":
        found["batch_size"] = _batch_size(plan)
        plan = _with(plan, found)
        lines.append(f"Batch size: {found['batch_size']} images a step, found by trying")
    if found["compile"] == "auto":
        found["compile"], why = _compile(plan, longest)
        plan = _with(plan, found)
        lines.append(why)
    elif found["compile"] == "on" and not plan.resumed:
        lines.append("Compiling: the first steps take up to a minute longer")
    how = f"precision {found['precision']}; seed {plan.config.training.seed}"
    lines.append(f"Computing on {plan.device}, {plan.threads} thread{'s' * (plan.threads > 1)}, {how}")
    if plan.threads > cores():
        lines.append(f"{plan.threads} threads on {cores()} cores hold each other up: leave --threads out")
    return replace(plan, record=found, lines=lines)


def _with(plan: Plan, found: dict[str, object]) -> Plan:
    return replace(plan, config=override(plan.config, {name: found[name] for name in AUTO_SETTINGS}))


def _convolutional(model: VAE) -> bool:
    return any(isinstance(one, nn.Conv2d) for network in (model.encoder, model.decoder) for one in network.modules())


def _batch_size(plan: Plan) -> int:
    """Double it as long as that is worth its while, fits in the memory and leaves an epoch enough steps."""
    train = plan.pack.splits["train"]
    count = int(train.stop - train.start)
    best, speed = min(SMALLEST, count), 0.0
    for size in [best, *(size for size in SIZES if size * FEWEST <= count)]:
        found = size / _seconds(plan, size)
        if not found > WORTH * speed:
            break
        best, speed = size, found
    return best


def _compile(plan: Plan, longest: float) -> tuple[str, str]:
    """Whether to compile, and a sentence that says why."""
    settings = plan.config.training
    size = int(settings.batch_size)
    train = plan.pack.splits["train"]
    steps = settings.epochs * max(1, (train.stop - train.start) // size)
    eager = _seconds(plan, size)
    if math.isinf(eager):
        return "off", "Not compiled: a batch does not fit in the memory at once"
    minutes = min(steps * eager / 60, longest)
    if 60 * minutes * HOPED.get(plan.device.type, 0) < COST:
        return "off", f"Not compiled: the steps take about {_about(minutes)}, too little to earn it back"
    try:
        compiled = _seconds(plan, size, "on")
    except Exception as error:  # of many kinds: no compiler, an operation it does not know
        return "off", f"Not compiled: it failed here ({type(error.__cause__ or error).__name__})"
    gain = eager / compiled
    found = f"{gain:.2f} times as fast in a trial"
    return ("on", f"Compiled: {found}") if gain > GAIN else ("off", f"Not compiled: {found}")


def _about(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} s"


def _seconds(plan: Plan, size: int, compiled: str = "off") -> float:
    """The shortest of a few steps of a copy of the model, after a first that counts for nothing; infinite where the
    memory does not suffice for a batch at once."""
    settings, device = plan.config.training.model_copy(update={"compile": compiled}), plan.device
    model = copy.deepcopy(plan.model).to(device).train()
    model.precision = compute_dtype(settings)
    batches = ImageLoader(plan.pack, plan.config.data, size, settings.seed, device)
    progress = Progress()
    train_step = make_train_step(
        model, plan.objective, make_optimizer(model.parameters(), settings), settings, progress
    )
    x, y = next(batches.train(0))
    times: list[float] = []
    with fork_rng(), matmul_precision(tf32=settings.precision == "tf32"), muted(), suppress(OutOfMemory):
        while progress.micro_batches == 1 and len(times) <= TRIES and (len(times) < 2 or sum(times[1:]) < PATIENCE):
            begun = time.perf_counter()
            train_step(x, y if model.classes else None, math.inf)["loss"].item()  # which waits for a GPU
            times.append(time.perf_counter() - begun)
    return min(times[1:], default=math.inf) if progress.micro_batches == 1 else math.inf
