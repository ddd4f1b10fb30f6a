"""A training session: the loop, with the run folder, the pictures and the signals wired to it."""

import copy
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

import vaekit
from vaekit import checkpoint, pictures
from vaekit.build import build
from vaekit.checkpoint import Snapshot
from vaekit.config import Config, Training, differences, resolve, revise
from vaekit.data.batches import Batches
from vaekit.data.pack import Pack, open_pack
from vaekit.errors import UserError
from vaekit.files import atomic_file
from vaekit.model import VAE, summary
from vaekit.parts.types import Objective
from vaekit.run import (
    FORMAT,
    Row,
    Run,
    append_metrics,
    first_free,
    keep_metrics,
    locked,
    read_config,
    read_metrics,
    write_json,
)
from vaekit.sampling import decode_means, draw_latents, to_uint8
from vaekit.screen import logging_to, progress, say, talking
from vaekit.training.background import Writer
from vaekit.training.loop import Diverged, Epoch, Progress, train
from vaekit.training.optimizers import optimizer_for

SAMPLES, SHOWN = 64, 32
"""Pictures show this many new images and this many reconstructions."""
SHARE = 0.03
"""Of the time, at most this much goes into redrawing the graph, and as much into checkpoints."""
DEFAULT_PRESET = {"gray": "classic", "colour": "sigma-vae"}


class Interrupted(KeyboardInterrupt):
    """A signal stopped training; all of it is saved in the run, and `--resume` goes on."""


class Failure(RuntimeError):
    """Training cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Request:
    """What a person asked for."""

    source: Any = None
    layers: tuple[Mapping[str, Any], ...] = ()
    """Settings over the preset's, later ones first in rank: a file's, then those of the command line."""
    preset: str | None = None
    out: Path | None = None
    resume: bool = False
    max_minutes: float | None = None
    quiet: bool = False


def run_training(request: Request) -> Run:
    """Train, or go on training, and return the run.

    Raises:
        UserError: a request that cannot be met, in one sentence.
        Failure: the loss diverged.
        Interrupted: by SIGINT or SIGTERM, after saving.
    """
    begun = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(talking(request.quiet))
        record = _saved(request)
        source = record["source"] if record and request.source is None else request.source
        for_data = _provisional(request, record)
        pack = open_pack(source, for_data.data, quiet=request.quiet)
        preset, config = _decide(request, record, pack)
        run = Run(request.out or first_free(Path("runs"), pack.name))
        stack.enter_context(locked(run))
        stack.enter_context(logging_to(run.log))
        device = _device(config.training, record)
        threads = record["threads"] if record else config.training.threads or torch.get_num_threads()
        stack.enter_context(_threads(threads))
        facts = _facts(preset, config, pack, source, device, threads)
        if record:
            _require_same(run, record, facts, pack)
        say(pack.summary)
        say(_choice(request, preset))
        session = _Session(run, config, pack, device, request)
        say(f"Model: {config.latents} latents, on {device} with {threads} threads in {config.training.precision} bit")
        say(summary(session.model))
        if not record:
            write_json(run.dataset, pack.describe())
        write_json(run.config, facts)
        say(f"Writing to {run.folder}")
        session.train(begun)
        return run


class _Session:
    """The state of one call: the networks, where training stands, what is on the disk."""

    def __init__(self, run: Run, config: Config, pack: Pack, device: torch.device, request: Request) -> None:
        self.run, self.config, self.pack, self.request = run, config, pack, request
        settings = config.training
        self.batches = Batches(pack, config.data, settings.batch_size, settings.seed, device)
        model, self.objective = build(config, pack.shape, len(pack.classes))
        self.model: VAE = model.to(device)
        self.model.precision = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        self.kept = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer: Optimizer = optimizer_for(self.model.parameters(), settings)
        self.progress = Progress()
        self.best: dict[str, float] = {"epoch": 0, "step": 0, "loss": math.inf}
        self.best_snapshot: Snapshot | None = None
        self.best_written = 0
        self.stopping = False
        self.paces = {"checkpoint": _Pace(SHARE), "graph": _Pace(SHARE)}
        self._restore()
        if settings.compile:
            for network in (self.model.encoder, self.model.decoder):
                network.compile()

    # --- resume ---

    def _restore(self) -> None:
        snapshot = checkpoint.newest_checkpoint(self.run) if self.request.resume else None
        rows = read_metrics(self.run)
        if snapshot is None:
            keep_metrics(self.run, [])
            return
        self.model.load_state_dict(snapshot.raw)
        self.kept.load_state_dict(snapshot.ema)
        checkpoint.restore_optimizer(self.optimizer, snapshot.optimizer)
        self.progress = Progress(**snapshot.state["progress"])
        self.best = dict(snapshot.state["best"])
        self.best_written = int(self.best["step"])
        keep_metrics(self.run, [row for row in rows if row["epoch"] <= self.progress.epoch])
        say(f"Going on after epoch {self.progress.epoch}, step {self.progress.step:,}")

    def _snapshot(self) -> Snapshot:
        state = {
            "step": self.progress.step,
            "epoch": self.progress.epoch,
            "best_step": int(self.best["step"]),
            "best": self.best,
            "progress": asdict(self.progress),
        }
        return Snapshot(
            raw=checkpoint.copied(self.model.state_dict()),
            ema=checkpoint.copied(self.kept.state_dict()),
            optimizer=checkpoint.copied(checkpoint.optimizer_tensors(self.optimizer)),
            state=state,
        )

    # --- training ---

    def train(self, begun: float) -> None:
        settings, steps = self.config.training, self.batches.steps_per_epoch
        if self._finished():
            say(f"Nothing to do: all {self.progress.epoch} epochs of this run are trained.")
            return
        total = settings.epochs * steps * self.batches.batch_size
        done = self.progress.step * self.batches.batch_size
        label = f"epoch {self.progress.epoch + 1}/{settings.epochs}"
        with (
            self._signals(),
            progress(total, label, done=done, quiet=self.request.quiet) as advance,
            torch.random.fork_rng(),
            Writer() as writer,
        ):
            watch = _Watch(self.batches.batch_size, advance, self._asked_to_stop)
            try:
                for epoch in train(
                    self.model,
                    self.kept,
                    self.batches,
                    self.objective,
                    self.optimizer,
                    settings,
                    self.progress,
                    watch.step,
                ):
                    self._after_epoch(epoch, watch, writer)
                    advance(0, f"epoch {min(self.progress.epoch + 1, settings.epochs)}/{settings.epochs}")
                    late = self.request.max_minutes is not None and time.perf_counter() - begun > 60 * self.request.max_minutes
                    if self._finished() or late or self.stopping:
                        break
            except Diverged as error:
                raise Failure(_remedy(error, settings, self.run)) from None
            self._save(writer, force=True)
            self._draw_graph(writer, force=True)
        if self.stopping:
            raise Interrupted
        if not self._finished():
            say(f"Stopped after epoch {self.progress.epoch}: the time is up; --resume goes on")
        else:
            say(f"Best validation loss: {self.best['loss']:.2f} nats per image, in epoch {self.best['epoch']:.0f}")

    def _asked_to_stop(self) -> bool:
        return self.stopping

    def _finished(self) -> bool:
        settings = self.config.training
        if self.progress.epoch >= settings.epochs:
            return True
        counted_from = max(self.best["epoch"], self.objective.settled)
        return bool(settings.patience) and self.progress.epoch - counted_from >= settings.patience

    def _after_epoch(self, epoch: Epoch, watch: "_Watch", writer: Writer) -> None:
        row: Row = {"epoch": self.progress.epoch, "step": self.progress.step, **watch.lap()}
        row |= {f"train_{name}": value for name, value in epoch.train.items()}
        row |= {f"val_{name}": value for name, value in epoch.validation.items()}
        append_metrics(self.run, row)
        say(_line(row, self.config.training.epochs))
        if row["val_loss"] < self.best["loss"]:
            self.best = {"epoch": row["epoch"], "step": row["step"], "loss": row["val_loss"]}
            self.best_snapshot = self._snapshot()
        if picture_due(self.progress.epoch) or self._finished():
            writer.put(f"pictures {self.progress.epoch}", self._pictures(self.progress.epoch))
        self._draw_graph(writer)
        self._save(writer)

    # --- files ---

    def _save(self, writer: Writer, force: bool = False) -> None:
        pace = self.paces["checkpoint"]
        if not (force or pace.ready()):
            return
        current = self.best_snapshot
        if current is None or current.step != self.progress.step or self.progress.done:
            current = self._snapshot()
        if not checkpoint.finite(current):
            raise Failure(_remedy(Diverged("the weights are no longer finite"), self.config.training, self.run))
        best = self.best_snapshot
        unsaved = best if best is not None and best.step != self.best_written else None

        def write() -> None:
            with pace.timed():
                if unsaved is not None:
                    checkpoint.write_weights(self.run.weights, unsaved.ema)
                    checkpoint.write_checkpoint(self.run, unsaved)
                    self.best_written = unsaved.step
                if current is not unsaved:
                    checkpoint.write_checkpoint(self.run, current)

        writer.put("checkpoint", write)

    def _draw_graph(self, writer: Writer, force: bool = False) -> None:
        pace = self.paces["graph"]
        if not (force or pace.ready()):
            return

        def write() -> None:
            import pandas as pd

            with pace.timed():
                rows = read_metrics(self.run)
                if rows:
                    title = f"{self.pack.name}: loss of every epoch"
                    _write_bytes(self.run.loss_graph, pictures.loss_graph(pd.DataFrame(rows), title))

        writer.put("graph", write)

    @torch.no_grad()
    def _pictures(self, epoch: int) -> Callable[[], None]:
        """Decode the pictures of an epoch now; the returned job draws and writes them."""
        model, classes = self.kept, self.pack.classes
        device = self.batches.device
        z = draw_latents(model, SAMPLES, self.config.training.seed).to(device)
        columns, y, labels = None, None, None
        if model.classes:
            columns = max(1, SAMPLES // model.classes)
            z = z[: columns * model.classes] if columns * model.classes <= SAMPLES else z
            y = torch.arange(len(z), device=device) // columns % model.classes
            labels = [classes[i] for i in y.tolist()]
        new = to_uint8(decode_means(model, z, y)).numpy()
        x, truth = next(self.batches.side("validation", limit=SHOWN))
        shown = to_uint8(x).numpy()
        again = to_uint8(model.reconstruct(x, truth if model.classes else None)).numpy()
        names = None
        if classes and truth is not None:
            names = [classes[i] if i >= 0 else "" for i in truth.tolist()]

        def write() -> None:
            _write_bytes(self.run.samples(epoch), pictures.png(pictures.grid(new, columns, labels)))
            _write_bytes(self.run.reconstructions(epoch), pictures.png(pictures.pairs(shown, again, 8, names)))

        return write

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks for a stop at the next step; a second one ends the process at once."""

        def handle(number: int, _: object) -> None:
            if self.stopping:
                os._exit(128 + number)
            self.stopping = True
            say("Stopping after this step and saving; once more to quit at once")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


class _Watch:
    """Counts and times steps, moves the progress bar, and looks at the loss a few times a second."""

    PERIOD = 0.25

    def __init__(self, batch: int, advance: Callable[..., None], stop: Callable[[], bool]) -> None:
        self.batch, self.advance, self.stop = batch, advance, stop
        self.started = self.last = self.shown = time.perf_counter()
        self.steps = self.unshown = 0

    def step(self, loss: Tensor) -> bool:
        self.last = time.perf_counter()
        self.steps += 1
        self.unshown += 1
        if self.last - self.shown > self.PERIOD:
            if not math.isfinite(loss.item()):
                raise Diverged(f"the loss became {loss.item()}")
            self._show()
        return self.stop()

    def lap(self) -> dict[str, float]:
        """Seconds since the last lap, validation included, and training images per second."""
        self._show()
        now = time.perf_counter()
        speed = self.steps * self.batch / max(self.last - self.started, 1e-9)
        seconds = now - self.started
        self.started, self.steps = now, 0
        return {"seconds": round(seconds, 3), "images_per_second": round(speed, 1)}

    def _show(self) -> None:
        self.advance(self.unshown * self.batch)
        self.unshown, self.shown = 0, self.last


class _Pace:
    """Keeps a job that is done again and again to a share of the time."""

    def __init__(self, share: float) -> None:
        self.share, self.next = share, 0.0

    def ready(self) -> bool:
        return time.perf_counter() >= self.next

    @contextmanager
    def timed(self) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        now = time.perf_counter()
        self.next = now + (now - begun) / self.share


def picture_due(epoch: int) -> bool:
    """Every epoch up to 20, then every 2nd to 50, 5th to 100, 10th to 200, and so on: about 15 a decade."""
    decade = 10 ** int(math.log10(max(epoch / 10, 1)))
    step = max(decade * nice for nice in (1, 2, 5) if decade * nice <= max(epoch / 10, 1))
    return epoch % step == 0


def _line(row: Row, epochs: int) -> str:
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
        f"  train {row['train_loss']:.2f} = {row['train_reconstruction']:.2f} + KL {row['train_kl']:.2f}"
        f"  validation {row['val_loss']:.2f} = {row['val_reconstruction']:.2f} + KL {row['val_kl']:.2f}"
        f"  {row['images_per_second']:,.0f} images/s"
    )


def _remedy(error: Diverged, settings: Training, run: Run) -> str:
    smaller = f"--learning-rate {settings.learning_rate / 3:.1g}"
    return (
        f"Training stopped because {error}; what {run.folder} holds from before is good: "
        f"train anew into another --out with {smaller}, or with --clip 1000."
    )


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


# --- from a request to a configuration -------------------------------------------------------------------------------


def _saved(request: Request) -> dict[str, Any] | None:
    """config.json of the run to go on with, or None where a new one starts."""
    if request.out is None:
        if request.resume:
            raise UserError("--resume needs --out RUN: the folder of the run to go on with.")
        return None
    run = Run(request.out)
    if run.exists():
        if not request.resume:
            raise UserError(
                f"{run.folder} already holds a run: go on with it by --resume, or name another folder with --out."
            )
        return read_config(run)
    others = [file.name for file in run.folder.iterdir() if file.name not in (".lock", "log.txt")] if run.folder.is_dir() else []
    if others or run.folder.is_file():
        raise UserError(f"{run.folder} is there and is not a run ({', '.join(others[:3]) or 'a file'}): name another --out.")
    return None


def _provisional(request: Request, record: dict[str, Any] | None) -> Config:
    """A configuration whose data settings are final, though the default preset is not chosen before data are seen.

    Settings that fit no preset are refused here, before any image is read.
    """
    if record:
        return revise(Config.model_validate(record["config"]), *request.layers)
    errors = []
    for preset in [request.preset] if request.preset else DEFAULT_PRESET.values():
        try:
            return resolve(*request.layers, preset=preset)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _decide(request: Request, record: dict[str, Any] | None, pack: Pack) -> tuple[str, Config]:
    """The preset's name and the whole configuration, now that the data are known."""
    if not record:
        preset = request.preset or DEFAULT_PRESET["gray" if pack.shape[0] == 1 else "colour"]
        return preset, resolve(*request.layers, preset=preset)
    if request.preset not in (None, record["preset"]):
        raise UserError(
            f"The run {request.out} was begun with --preset {record['preset']}, not {request.preset}: "
            "drop --preset, or name another folder with --out."
        )
    old = Config.model_validate(record["config"])
    new = revise(old, *request.layers)
    for name, (before, after) in differences(old, new).items():
        if name != "epochs":
            raise UserError(
                f"The run {request.out} was begun with --{name} {before}, not {after}: "
                f"drop --{name}, or name another folder with --out."
            )
        if after < before:
            raise UserError(f"The run {request.out} was begun for {before} epochs: --epochs can only be raised.")
    return record["preset"], new


def _choice(request: Request, preset: str) -> str:
    if request.preset or request.resume:
        return f"Preset: {preset}"
    return f"Preset: {preset}, the default for such images (`vaekit presets` lists others; choose with --preset NAME)"


def _device(settings: Training, record: dict[str, Any] | None) -> torch.device:
    """The device of the run so far where it is still there, else the one that was asked for."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if record and there[torch.device(record["device"]).type]:
        return torch.device(record["device"])
    if settings.device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    device = torch.device(settings.device)
    if not there[device.type]:
        raise UserError(f"--device {device} is not available on this machine: use --device auto.")
    return device


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _facts(
    preset: str, config: Config, pack: Pack, source: Any, device: torch.device, threads: int
) -> dict[str, Any]:
    """config.json: everything needed to rebuild the model and to repeat the run."""
    return {
        "format": FORMAT,
        "preset": preset,
        "config": config.model_dump(),
        "shape": list(pack.shape),
        "classes": list(pack.classes),
        "source": str(Path(source).resolve()) if isinstance(source, (str, Path)) else None,
        "seed": config.training.seed,
        "device": str(device),
        "threads": threads,
        "precision": config.training.precision,
        "compile": config.training.compile,
        "versions": {
            "vaekit": vaekit.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _require_same(run: Run, record: dict[str, Any], facts: dict[str, Any], pack: Pack) -> None:
    """Refuse other data; say where the machine differs, since then a resumed run is not the same bit for bit."""
    import json

    before = json.loads(run.dataset.read_text(encoding="utf-8"))
    if before["fingerprint"] != pack.identity:
        raise UserError(
            f"The run {run.folder} was begun on other images ({before['source']}): give the same data, "
            "or name another folder with --out."
        )
    changed = [
        f"{name} {record[name]} -> {facts[name]}"
        for name in ("device", "threads", "versions")
        if record[name] != facts[name]
    ]
    if changed:
        say(f"Not the same bit for bit as without the break: {'; '.join(changed)}")
