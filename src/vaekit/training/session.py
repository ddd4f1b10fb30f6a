"""A training session: the loop, with the run folder, the pictures and the signals wired to it."""

import copy
import math
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch.optim import Optimizer

from vaekit.config.training import TrainingConfig
from vaekit.data.loader import ImageLoader
from vaekit.errors import Interrupted, TrainingFailed, UserError
from vaekit.latents.fit_prior import fit_prior
from vaekit.latents.sampling import decode_images, draw_latents, to_uint8
from vaekit.models.summary import summary
from vaekit.models.vae import VAE
from vaekit.plots import curves, grids
from vaekit.runs import checkpoint
from vaekit.runs.checkpoint import Snapshot
from vaekit.runs.folder import Run, locked
from vaekit.runs.metadata import write_json
from vaekit.runs.metrics import Row, append_metrics, keep_metrics, read_metrics, still_falling
from vaekit.training.auto_tune import resolve_auto
from vaekit.training.background_writer import BackgroundWriter
from vaekit.training.data_init import init_from_data
from vaekit.training.loop import Diverged, Epoch, train
from vaekit.training.monitor import RateLimiter, StepMonitor, picture_due
from vaekit.training.optimizers import compute_dtype, make_optimizer
from vaekit.training.plan import Plan, TrainRequest, make_plan, require_new_run
from vaekit.training.step import Progress
from vaekit.utils.device import flush_denormals, fork_rng, keep_freed_memory, matmul_precision
from vaekit.utils.files import atomic_file, sha256
from vaekit.utils.logging import console_logging, file_logging, log, progress

SAMPLES, SHOWN = 64, 32
"""Pictures show this many new images and this many reconstructions."""


NAMES = ("loss", "reconstruction", "kl")
"""Columns that metrics.csv always has, for both sides; what else an objective reports comes after them."""


SHARE = 0.03
"""Of the time, at most this much goes into redrawing the graph, and as much into checkpoints."""


def run_training(request: TrainRequest) -> Run:
    """Train, or go on training, and return the run.

    Raises:
        UserError: a request that cannot be met, in one sentence.
        Failure: the loss diverged.
        Interrupted: by SIGINT or SIGTERM, after saving.
    """
    begun = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(console_logging(request.quiet))
        plan = make_plan(request)
        run = plan.run
        stack.enter_context(locked(run))
        require_new_run(plan)
        stack.enter_context(file_logging(run.log))
        stack.enter_context(_threads(plan.threads))
        stack.enter_context(keep_freed_memory())
        stack.enter_context(flush_denormals())
        plan = resolve_auto(plan, math.inf if request.max_minutes is None else request.max_minutes)
        stack.enter_context(matmul_precision(tf32=plan.config.training.precision == "tf32"))
        for line in plan.lines:
            log.info(line)
        session = _Session(plan, request)
        log.info(summary(session.model))
        if not plan.resumed:
            write_json(run.dataset, plan.pack.describe())
        write_json(run.config, plan.record)
        log.info(f"Writing to {run.folder}")
        session.train(begun)
        return run


class _Session:
    """The state of one call: the networks, where training stands, what is on the disk."""

    def __init__(self, plan: Plan, request: TrainRequest) -> None:
        self.run, self.config, self.pack, self.request = plan.run, plan.config, plan.pack, request
        self.preset: str = plan.record["preset"]
        config, pack, device = plan.config, plan.pack, plan.device
        self.objective = plan.objective
        settings = config.training
        assert isinstance(settings.batch_size, int)  # settled
        self.batches = ImageLoader(pack, config.data, settings.batch_size, settings.seed, device)
        self.model: VAE = plan.model.to(device)
        self.model.precision = compute_dtype(settings)
        self.model.require_support(next(self.batches.split("validation", SHOWN, size=SHOWN))[0])
        self.ema_model = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer: Optimizer = make_optimizer(self.model.parameters(), settings)
        self.progress = Progress()
        self.best: dict[str, float | None] = {"epoch": 0, "step": 0, "loss": None}
        self.best_snapshot: Snapshot | None = None
        self.best_written = 0
        self.stopping = False
        self.paces = {"checkpoint": RateLimiter(SHARE), "graph": RateLimiter(SHARE)}
        self._restore()

    # --- resume ---

    def _restore(self) -> None:
        snapshot = checkpoint.newest_checkpoint(self.run)
        rows = read_metrics(self.run)
        if snapshot is None:
            if self.run.weights.exists():
                raise UserError(
                    f"{self.run.folder} holds a trained model but no whole checkpoint to go on from: "
                    "it can be used as it is; to train anew, name another folder with --out."
                )
            keep_metrics(self.run, [])
            init_from_data((self.model, self.ema_model), self.batches, self.config.training.seed)
            return
        if snapshot.state["best_step"] == snapshot.step:  # the run may have ended between these two writes
            checkpoint.write_weights(self.run.weights, snapshot.ema)
        self.model.load_state_dict(snapshot.raw)
        self.ema_model.load_state_dict(snapshot.ema)
        checkpoint.restore_optimizer(self.optimizer, snapshot.optimizer)
        self.progress = Progress.from_state(snapshot.state["progress"])
        self.best = dict(snapshot.state["best"])
        self.best_written = self._best_step
        keep_metrics(self.run, [row for row in rows if row["epoch"] <= self.progress.epoch])
        log.info(f"Going on after epoch {self.progress.epoch}, step {self.progress.step:,}")

    def _snapshot(self) -> Snapshot:
        state = {
            "step": self.progress.step,
            "epoch": self.progress.epoch,
            "best_step": self._best_step,
            "best": self.best,
            "progress": asdict(self.progress),
        }
        return Snapshot(
            raw=checkpoint.copied(self.model.state_dict()),
            ema=checkpoint.copied(self.ema_model.state_dict()),
            optimizer=checkpoint.copied(checkpoint.optimizer_tensors(self.optimizer)),
            state=state,
        )

    # --- training ---

    def train(self, begun: float) -> None:
        settings, steps = self.config.training, self.batches.steps_per_epoch
        if self._finished():
            early = "stopped early by --patience" if self.progress.epoch < settings.epochs else "--epochs can be raised"
            log.info(f"Nothing to do: this run is finished after {self.progress.epoch} epochs ({early}).")
            with suppress(UserError):  # a damaged one is made anew
                if checkpoint.load_prior(self.run, sha256(self.run.weights)) is not None:
                    return
            self._fit_prior()
            return
        limit = math.inf if self.request.max_minutes is None else 60 * self.request.max_minutes
        total = settings.epochs * steps * self.batches.batch_size
        done = self.progress.step * self.batches.batch_size
        label = f"epoch {self.progress.epoch + 1}/{settings.epochs}"
        with (
            self._signals(),
            progress(total, label, done=done, quiet=self.request.quiet) as advance,
            fork_rng(),
            BackgroundWriter() as writer,
        ):
            watch = StepMonitor(self.batches.batch_size, advance, self._asked_to_stop)
            try:
                for epoch in train(
                    self.model,
                    self.ema_model,
                    self.batches,
                    self.objective,
                    self.optimizer,
                    settings,
                    self.progress,
                    watch.step,
                ):
                    self._after_epoch(epoch, watch, writer)
                    advance(0, f"epoch {min(self.progress.epoch + 1, settings.epochs)}/{settings.epochs}")
                    if self._finished() or self.stopping or time.perf_counter() - begun > limit:
                        break
            except Diverged as error:
                raise TrainingFailed(_remedy(error, settings, self.run)) from None
            self._save(writer, force=True)
            self._draw_graph(writer, force=True)
        if not self.stopping:
            self._fit_prior()
        if self._finished():
            log.info(f"Best validation loss: {self.best['loss']:.2f} nats per image, in epoch {self.best['epoch']}")
            rows = read_metrics(self.run)
            settled = [row["val_loss"] for row in rows if row["epoch"] > self.objective.schedule_end]
            loss_drop = rows[0]["val_loss"] - min(row["val_loss"] for row in rows)
            if settings.schedule == "constant" and still_falling(settled, loss_drop):
                out = shlex.quote(str(self.run.folder))
                log.info(f"It was still falling: --resume --out {out} --epochs {2 * settings.epochs} goes on")
        elif self.stopping:
            raise Interrupted
        else:
            out = shlex.quote(str(self.run.folder))
            log.info(f"Stopped after epoch {self.progress.epoch}: the time is up; --resume --out {out} goes on")

    @property
    def _best_step(self) -> int:
        return int(self.best["step"] or 0)

    def _asked_to_stop(self) -> bool:
        return self.stopping

    def _finished(self) -> bool:
        settings = self.config.training
        if self.progress.epoch >= settings.epochs:
            return True
        counted_from = max(self.best["epoch"] or 0, self.objective.schedule_end)
        return bool(settings.patience) and self.progress.epoch - counted_from >= settings.patience

    def _after_epoch(self, epoch: Epoch, watch: "StepMonitor", writer: BackgroundWriter) -> None:
        row: Row = {"epoch": self.progress.epoch, "step": self.progress.step, **watch.epoch_stats(epoch.trained)}
        extras = [name for name in epoch.train if name not in NAMES]
        for names in (NAMES, extras):
            for split, found in (("train", epoch.train), ("val", epoch.validation)):
                row |= {f"{split}_{name}": found.get(name, math.nan) for name in names}
        append_metrics(self.run, row)
        log.info(
            f"epoch {row['epoch']:>{len(str(self.config.training.epochs))}}/{self.config.training.epochs}"
            f"  train {_sum(epoch.train)}  validation {_sum(epoch.validation)}"
            f"  {row['images_per_second']:,.0f} images/s"
        )
        if self.best["loss"] is None or row["val_loss"] < self.best["loss"]:
            self.best = {"epoch": self.progress.epoch, "step": self.progress.step, "loss": row["val_loss"]}
            self.best_snapshot = self._snapshot()
        if picture_due(self.progress.epoch) or self._finished():
            self._draw_pictures(writer)
        self._draw_graph(writer)
        self._save(writer)

    def _fit_prior(self) -> None:
        """Fit a prior to the latents of the weights to use, and keep it where it is better than the model's own."""
        model = copy.deepcopy(self.ema_model)
        checkpoint.load_weights(model, self.run.weights)
        log.info("Fitting a prior to the latents, for new images")
        try:
            fit = fit_prior(model, self.batches, self.config.training.seed, self.request.quiet)
        except KeyboardInterrupt:
            raise Interrupted from None  # which a resumed run makes good
        checkpoint.write_prior(self.run, fit.prior, fit.record, sha256(self.run.weights))
        log.info(fit.sentence)

    # --- files ---

    def _save(self, writer: BackgroundWriter, force: bool = False) -> None:
        pace = self.paces["checkpoint"]
        if not force and (not pace.ready() or writer.waiting("checkpoint")):
            return
        current = self.best_snapshot
        if current is None or current.step != self.progress.step or self.progress.done:
            current = self._snapshot()
        if not checkpoint.finite(current):
            raise TrainingFailed(_remedy(Diverged("the weights are no longer finite"), self.config.training, self.run))
        best = self.best_snapshot
        unsaved = best if best is not None and best.step != self.best_written else None

        def write() -> None:
            with pace.timed():
                if unsaved is not None:
                    checkpoint.write_checkpoint(self.run, unsaved)
                    checkpoint.write_weights(self.run.weights, unsaved.ema)
                    self.best_written = unsaved.step
                if current is not unsaved:
                    checkpoint.write_checkpoint(self.run, current)

        writer.put("checkpoint", write)

    def _draw_graph(self, writer: BackgroundWriter, force: bool = False) -> None:
        pace = self.paces["graph"]
        if not (force or pace.ready()):
            return

        def write() -> None:
            import pandas as pd

            with pace.timed():
                rows = read_metrics(self.run)
                if rows:
                    title = f"{self.run.folder.resolve().name}, preset {self.preset}"
                    _write_bytes(self.run.loss_graph, curves.loss_graph(pd.DataFrame(rows), title))

        writer.put("graph", write)

    @torch.no_grad()
    def _draw_pictures(self, writer: BackgroundWriter) -> None:
        """Decode the pictures of the epoch now; draw and write them in the background."""
        model, classes, epoch = self.ema_model, self.pack.classes, self.progress.epoch
        device = self.batches.device
        count, columns, y, labels = SAMPLES, None, None, None
        if model.classes:
            columns = max(1, SAMPLES // model.classes)
            count = min(SAMPLES, columns * model.classes)
            y = torch.arange(count, device=device) // columns % model.classes
            labels = [classes[i] for i in y.tolist()]
        z = draw_latents(model, count, self.config.training.seed, y).to(device)
        new = to_uint8(decode_images(model, z, y)).numpy()
        x, truth = next(self.batches.split("validation", SHOWN, size=SHOWN))
        shown = to_uint8(x).numpy()
        again = to_uint8(model.reconstruct(x, truth if model.classes else None)).numpy()
        names = None
        if classes and truth is not None:
            names = [classes[i] if i >= 0 else "" for i in truth.tolist()]

        def write() -> None:
            drawn = grids.grid(new, columns, labels, f"Epoch {epoch}: new images, drawn from the prior")
            _write_bytes(self.run.samples(epoch), grids.png(drawn))
            title = f"Epoch {epoch}: held-out images above, their reconstructions below"
            _write_bytes(self.run.reconstructions(epoch), grids.png(grids.pairs(shown, again, 8, names, title)))

        writer.put(f"pictures {epoch}", write)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks for a stop at the next step; a second one ends the process at once."""

        def handle(number: int, _: object) -> None:
            if self.stopping:
                os._exit(128 + number)
            self.stopping = True
            log.info("Stopping after this step and saving; once more to quit at once")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def _sum(found: dict[str, float]) -> str:
    """`236.30 = 222.22 + KL 14.08` for the ELBO; otherwise the loss, and in brackets what was reported beside it."""
    loss, reconstruction, *others = found["loss"], found["reconstruction"], *list(found)[2:]
    if others == ["kl"] and math.isclose(loss, reconstruction + found["kl"], rel_tol=2e-7, abs_tol=0.005):
        return f"{loss:.2f} = {reconstruction:.2f} + KL {found['kl']:z.2f}"
    words = [f"reconstruction {reconstruction:.2f}"]
    words += [f"{'KL' if name == 'kl' else name.replace('_', ' ')} {found[name]:z.4g}" for name in others]
    return f"{loss:.2f} ({', '.join(words)})"


def _remedy(error: Diverged, settings: TrainingConfig, run: Run) -> str:
    smaller = f"--learning-rate {float(f'{settings.learning_rate / 3:.1g}'):g}"
    return (
        f"Training stopped because {error}; what {run.folder} holds from before is good: "
        f"train anew into another --out with {smaller}, or with --clip 1000."
    )


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
