"""A training session: from a request to a run folder."""

import math
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack

import torch

from vaekit.config.config import Config
from vaekit.data.loader import ImageLoader
from vaekit.errors import Interrupted, TrainingFailed, UserError, setting
from vaekit.evaluation.context import QUICK_IMAGES
from vaekit.models.summary import summary
from vaekit.runs.folder import Run, locked
from vaekit.runs.metadata import DatasetSummary, write_record
from vaekit.runs.metrics import read_metrics
from vaekit.runs.unfinished import unfinished
from vaekit.training.artifacts import LossGraph, default_callbacks
from vaekit.training.auto_tune import resolve_auto
from vaekit.training.callbacks import (
    BestEpoch,
    Callback,
    ConsoleLogger,
    MetricsWriter,
    TrainingState,
    metrics_row,
)
from vaekit.training.checkpointing import Checkpoints, restore
from vaekit.training.interrupts import stop_on_signals
from vaekit.training.lengths import (
    DEFAULT_MINUTES,
    END_SECONDS,
    SECOND_STAGE_SHARE,
    note_few_steps,
    resolve_epochs,
    resolve_second_stage,
    time_for_training,
)
from vaekit.training.loop import Diverged, train
from vaekit.training.monitor import PRIOR_SECONDS, StepMonitor, TimeLeft, work_at_end
from vaekit.training.optimizers import compute_dtype
from vaekit.training.plan import Plan, make_plan, require_no_run
from vaekit.training.problems import problems
from vaekit.training.request import TrainRequest
from vaekit.training.second_stage import LatentPictures, second_stage
from vaekit.training.step import TrainStep
from vaekit.training.tracking import Tracking, require_tracker, tracking
from vaekit.utils.device import flush_denormals, keep_freed_memory, matmul_precision, restore_rng
from vaekit.utils.logging import LONG_PHASE_SECONDS, console_logging, file_logging, log, progress, status

MAX_OVERRUN = 1.25
"""A first stage that takes longer than its share of the time limit by this factor ends early."""
CHECKED_IMAGES = 32
"""Validation images whose pixels are checked against the support of the likelihood."""
TRAINING = threading.RLock()
"""Held by the training of this process: threads of torch and settings of the processor are shared."""


def run_training(request: TrainRequest, callbacks: Sequence[Callback] | None = None) -> Run:
    """Train, or resume training, and return the run; without `callbacks`, with `default_callbacks()`.

    Trainings in several threads run one after the other.

    Raises:
        UserError: the request cannot be met.
        TrainingFailed: the loss diverged.
        Interrupted: by SIGINT or SIGTERM, after saving.
    """
    with ExitStack() as stack:
        stack.enter_context(console_logging(request.quiet))
        with status("Waiting for the other training of this process"):
            stack.enter_context(TRAINING)
        start = time.perf_counter()
        require_tracker(request.track)
        with status("Reading images"):
            plan = make_plan(request)
        stack.enter_context(locked(plan.run))
        if not plan.resumed:  # another process may have begun a run there meanwhile
            require_no_run(plan.run)
        stack.enter_context(file_logging(plan.run.log))
        for line in plan.lines:
            log.info(line)
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(plan.metadata.threads)
        stack.enter_context(keep_freed_memory())
        stack.enter_context(flush_denormals())
        minutes = request.minutes
        if minutes is None and not plan.config.training.epochs:
            minutes = DEFAULT_MINUTES if request.max_minutes is None else request.max_minutes
        limits = [limit for limit in (minutes, request.max_minutes) if limit is not None]
        share = 1 - SECOND_STAGE_SHARE if plan.config.latent_prior == "flow_matching" else 1.0
        plan = resolve_auto(plan, share * min(limits, default=math.inf))
        if not plan.config.training.epochs:
            assert minutes is not None
            plan = resolve_epochs(plan, request, minutes, start)
        elif not plan.resumed:
            note_few_steps(plan)
        stack.enter_context(matmul_precision(tf32=plan.config.training.precision == "tf32"))
        with status("Preparing the model"):
            state = _make_state(plan, request)
        log.debug(summary(state.train_step.model))
        if not plan.resumed:
            write_record(plan.run.dataset, DatasetSummary.model_validate(plan.pack.describe()))
        write_record(plan.run.config, plan.metadata)
        log.info(f"Writing to {plan.run.folder}")
        chosen = list(default_callbacks() if callbacks is None else callbacks)
        chosen += stack.enter_context(tracking(plan, request.track))
        _run_session(state, [MetricsWriter(), ConsoleLogger(), *chosen, Checkpoints()], start, minutes)
        return plan.run


def train_second_stage(run: Run, config: Config, steps: int, quiet: bool) -> None:
    """Train the second stage of a finished run on, to `steps` in all.

    Raises:
        UserError: the run has no second stage, or had more steps.
    """
    if config.latent_prior != "flow_matching":
        raise UserError(f"{run.folder} has no flow matching to train.", option="steps")
    layers = ({"flow_matching": {"steps": steps}},)
    run_training(TrainRequest(layers=layers, out=run.folder, resume=True, quiet=quiet, report=False), [])


def _make_state(plan: Plan, request: TrainRequest) -> TrainingState:
    settings = plan.config.training
    assert isinstance(settings.batch_size, int)  # `resolve_auto` has seen to it
    loader = ImageLoader(
        plan.pack,
        plan.config.data,
        settings.batch_size,
        settings.seed,
        plan.device,
        steps_per_epoch=settings.steps_per_epoch,
    )
    model = plan.model.to(plan.device)
    model.precision = compute_dtype(settings)
    model.require_support(next(loader.split("validation", CHECKED_IMAGES, size=CHECKED_IMAGES))[0])
    train_step = TrainStep(model, plan.objective, settings, loader.steps_per_epoch)
    state = TrainingState(plan, request, train_step, loader)
    restore(state)
    return state


def _run_session(
    state: TrainingState, callbacks: Sequence[Callback], start: float, minutes: float | None
) -> None:
    """Train both stages until they are finished, the time is up or a signal comes, and save everything."""
    has_second_stage = state.plan.config.latent_prior == "flow_matching"
    limit = math.inf if state.request.max_minutes is None else 60 * state.request.max_minutes
    if not state.finished:
        share = 1 - SECOND_STAGE_SHARE if has_second_stage else 1.0
        _fit(state, callbacks, start, min(1.0, MAX_OVERRUN * share) * limit, minutes)
    stopped = state if state.stop_requested else None
    if has_second_stage and not stopped:
        _resolve_second_stage(state, start, minutes)
        try:
            second = second_stage(state)
        except KeyboardInterrupt:
            where = "Stopped while encoding the images; nothing is lost."
            raise Interrupted(f"{where} {state.how_to_resume()}") from None
        if not second.finished:
            state.trained = True
            trackers = [callback for callback in callbacks if isinstance(callback, Tracking)]
            others = [LatentPictures(state.train_step.ema.model), LossGraph(), *trackers]
            second_callbacks = [MetricsWriter(), ConsoleLogger(), *others, Checkpoints()]
            _fit(second, second_callbacks, start, limit)
            stopped = second if second.stop_requested else None
    for callback in callbacks:
        callback.on_saved(state)
    if stopped:
        raise Interrupted(_where_stopped(stopped), state.run.folder)
    if state.trained:
        _report_end(state)
    else:
        _say_finished(state)


def _say_finished(state: TrainingState) -> None:
    epoch, epochs = state.progress.epoch, state.plan.config.training.epochs
    reason = "early stopping" if epoch < epochs else "all epochs are done"
    log.info(f"Nothing to do: this run is finished after {epoch} epochs ({reason}).")
    if epoch == epochs:
        log.info(f"To train longer, raise {setting('epochs')}. {state.how_to_resume(2 * epochs)}")


def _resolve_second_stage(state: TrainingState, start: float, minutes: float | None) -> None:
    """Choose the length of the second stage, unless it is given: what is left of the time for all of it, or
    where epochs are given, in proportion to the time that they took."""
    if state.plan.config.flow_matching.steps:
        return
    if minutes is None:
        first = sum(row["seconds"] for row in read_metrics(state.run))
        seconds = first * SECOND_STAGE_SHARE / (1 - SECOND_STAGE_SHARE)
        if state.request.max_minutes is not None:
            seconds = min(seconds, time_for_training(state.request.max_minutes, start))
    else:
        seconds = time_for_training(minutes, start)
    state.plan = resolve_second_stage(state.plan, state.request, seconds)
    write_record(state.run.config, state.plan.metadata)


def _fit(
    state: TrainingState,
    callbacks: Sequence[Callback],
    start: float,
    limit: float,
    minutes: float | None = None,
) -> None:
    """Train one stage until it is finished or `limit` seconds after `start`; `minutes` are for all."""
    state.trained = True
    try:
        with ExitStack() as saving, state.background, restore_rng():
            _train_epochs(state, callbacks, start, limit, minutes)
            saving.enter_context(status("Saving"))
            for callback in callbacks:
                callback.on_train_end(state)
    except Diverged as error:
        smaller = setting("learning_rate", float(f"{state.plan.config.training.learning_rate / 3:.1g}"))
        raise TrainingFailed(
            f"Training stopped because {error}. Checkpoints in {state.run.folder} up to this point are "
            f"valid. Start a new run in another {setting('out')} with {smaller} or "
            f"{setting('clip', 1000)}."
        ) from None
    has_model = Run(state.run.main).weights.exists()
    if state.stop_requested and not (state.finish_up and has_model):
        raise Interrupted(_where_stopped(state))


def _where_stopped(state: TrainingState) -> str:
    where = f"Stopped in {state.name} {state.progress.epoch + 1} of {state.plan.config.training.epochs}"
    return f"{where}; nothing is lost. {state.how_to_resume()}"


def _train_epochs(
    state: TrainingState,
    callbacks: Sequence[Callback],
    start: float,
    limit: float,
    minutes: float | None,
) -> None:
    settings, request, loader = state.plan.config.training, state.request, state.loader
    images_per_epoch = loader.steps_per_epoch * loader.batch_size
    total, done = settings.epochs * images_per_epoch, state.progress.steps_in_epoch * loader.batch_size
    time_left = TimeLeft(start, limit, images_per_epoch, *_after_epochs(state, total, minutes))

    def label() -> str:
        return f"{state.name} {min(state.progress.epoch + 1, settings.epochs)}/{settings.epochs}"

    with (
        stop_on_signals(state),
        progress(images_per_epoch, label(), "images", done, request.quiet, LONG_PHASE_SECONDS) as advance,
    ):

        def on_progress(images: int) -> None:
            time_left.add(images)
            left = total - state.progress.step * loader.batch_size
            advance(images, remaining=time_left.estimate(left))

        for callback in callbacks:
            callback.on_train_begin(state)
        monitor = StepMonitor(loader.batch_size, on_progress, lambda: state.stop_requested)
        for result in train(state.train_step, loader, settings.epochs, state.progress, monitor.on_step):
            row = metrics_row(state, result, monitor.epoch_stats(result.trained_at))
            if not state.finished:
                advance(0, label(), total=images_per_epoch)
            if state.best.loss is None or row["val_loss"] < state.best.loss:
                state.best = BestEpoch(state.progress.epoch, state.progress.step, row["val_loss"])
            for callback in callbacks:
                callback.on_epoch_end(state, result, row)
            if state.finished or state.stop_requested or time.perf_counter() - start > limit:
                break


def _after_epochs(
    state: TrainingState, total_images: int, minutes: float | None
) -> tuple[float, float, float]:
    """What comes after the epochs, as `TimeLeft` takes it."""
    if state.plan.config.latent_prior == "flow_matching":
        is_first = state.run.folder == state.run.main
        if is_first and minutes is not None and not state.plan.config.flow_matching.steps:
            return 0.0, END_SECONDS, 60 * minutes
        ratio = SECOND_STAGE_SHARE / (1 - SECOND_STAGE_SHARE)
        return ratio * total_images if is_first else 0.0, END_SECONDS, 0.0
    held_out = state.plan.pack.count("test") or state.plan.pack.count("validation")
    report_images = min(QUICK_IMAGES, held_out) if state.request.report else 0
    return work_at_end(state.loader.count, report_images), PRIOR_SECONDS, 0.0


def _report_end(state: TrainingState) -> None:
    """Say how training ended, and if it should go on, how."""
    limit = "" if state.finished else "Time limit reached. "
    if more := unfinished(state.run, state.plan.config, state.plan.objective.schedule_end):
        log.info(f"{limit}{more.text} {state.how_to_resume(more.epochs)}")
        return
    for text in problems(read_metrics(state.run), state.plan.config, state.plan.pack.count("validation")):
        log.warning(text)
