"""What --precision, --batch-size and --compile come to where they are left open: by the device, or by trying."""

import copy
import math
import time
from contextlib import suppress
from dataclasses import replace

from torch import nn

from vaekit.config.overrides import revise
from vaekit.data.decoding.pool import cores
from vaekit.data.loader import Batches
from vaekit.errors import UserError
from vaekit.models.vae import VAE
from vaekit.training.optimizers import arithmetic, optimizer_for
from vaekit.training.plan import LEFT_OPEN, Plan
from vaekit.training.step import Progress, TooLarge, stepper
from vaekit.utils.device import fast_bf16, fast_tf32, own_noise, products
from vaekit.utils.logging import hushed

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


def settle(todo: Plan, longest: float = math.inf) -> Plan:
    """The plan with nothing left open; a run that goes on keeps what was found at its beginning.

    Args:
        longest: minutes after which the run will be stopped.

    Raises:
        UserError: a precision that the device does not have.
    """
    found, lines = dict(todo.record), list(todo.lines)
    if found["precision"] == "auto":
        quick = fast_bf16(todo.device) and _convolutional(todo.model)
        found["precision"] = "bf16" if quick else "tf32" if fast_tf32(todo.device) else "32"
    elif found["precision"] == "tf32" and not fast_tf32(todo.device):
        if not todo.resumed:
            raise UserError(
                f"--precision tf32 is for NVIDIA GPUs of 2020 or later, and this run is on {todo.device}: "
                "use --precision auto."
            )
        found["precision"] = "32"
    todo = _with(todo, found)
    if found["batch_size"] == "auto":
        found["batch_size"] = _batch_size(todo)
        todo = _with(todo, found)
        lines.append(f"Batch size: {found['batch_size']} images a step, found by trying")
    if found["compile"] == "auto":
        found["compile"], why = _compile(todo, longest)
        todo = _with(todo, found)
        lines.append(why)
    elif found["compile"] == "on" and not todo.resumed:
        lines.append("Compiling: the first steps take up to a minute longer")
    how = f"precision {found['precision']}; seed {todo.config.training.seed}"
    lines.append(f"Computing on {todo.device}, {todo.threads} thread{'s' * (todo.threads > 1)}, {how}")
    if todo.threads > cores():
        lines.append(f"{todo.threads} threads on {cores()} cores hold each other up: leave --threads out")
    return replace(todo, record=found, lines=lines)


def _with(todo: Plan, found: dict[str, object]) -> Plan:
    return replace(todo, config=revise(todo.config, {name: found[name] for name in LEFT_OPEN}))


def _convolutional(model: VAE) -> bool:
    return any(isinstance(one, nn.Conv2d) for network in (model.encoder, model.decoder) for one in network.modules())


def _batch_size(todo: Plan) -> int:
    """Double it as long as that is worth its while, fits in the memory and leaves an epoch enough steps."""
    train = todo.pack.sides["train"]
    count = int(train.stop - train.start)
    best, speed = min(SMALLEST, count), 0.0
    for size in [best, *(size for size in SIZES if size * FEWEST <= count)]:
        found = size / _seconds(todo, size)
        if not found > WORTH * speed:
            break
        best, speed = size, found
    return best


def _compile(todo: Plan, longest: float) -> tuple[str, str]:
    """Whether to compile, and a sentence that says why."""
    settings = todo.config.training
    size = int(settings.batch_size)
    train = todo.pack.sides["train"]
    steps = settings.epochs * max(1, (train.stop - train.start) // size)
    eager = _seconds(todo, size)
    if math.isinf(eager):
        return "off", "Not compiled: a batch does not fit in the memory at once"
    minutes = min(steps * eager / 60, longest)
    if 60 * minutes * HOPED.get(todo.device.type, 0) < COST:
        return "off", f"Not compiled: the steps take about {_about(minutes)}, too little to earn it back"
    try:
        compiled = _seconds(todo, size, "on")
    except Exception as error:  # of many kinds: no compiler, an operation it does not know
        return "off", f"Not compiled: it failed here ({type(error.__cause__ or error).__name__})"
    gain = eager / compiled
    found = f"{gain:.2f} times as fast in a trial"
    return ("on", f"Compiled: {found}") if gain > GAIN else ("off", f"Not compiled: {found}")


def _about(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} s"


def _seconds(todo: Plan, size: int, compiled: str = "off") -> float:
    """The shortest of a few steps of a copy of the model, after a first that counts for nothing; infinite where the
    memory does not suffice for a batch at once."""
    settings, device = todo.config.training.model_copy(update={"compile": compiled}), todo.device
    model = copy.deepcopy(todo.model).to(device).train()
    model.precision = arithmetic(settings)
    batches = Batches(todo.pack, todo.config.data, size, settings.seed, device)
    progress = Progress()
    take = stepper(model, todo.objective, optimizer_for(model.parameters(), settings), settings, progress)
    x, y = next(batches.train(0))
    times: list[float] = []
    with own_noise(), products(tf32=settings.precision == "tf32"), hushed(), suppress(TooLarge):
        while progress.pieces == 1 and len(times) <= TRIES and (len(times) < 2 or sum(times[1:]) < PATIENCE):
            begun = time.perf_counter()
            take(x, y if model.classes else None, math.inf)["loss"].item()  # which waits for a GPU
            times.append(time.perf_counter() - begun)
    return min(times[1:], default=math.inf) if progress.pieces == 1 else math.inf
