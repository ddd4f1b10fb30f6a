"""The callback that logs a run to a tracker.

A tracker works in a thread, for which training never waits. When it fails, that is logged, and training
continues without it. The tracker and its run id are in tracker.json, so that a resumed run stays one.
"""

import importlib
import importlib.util
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, get_args

from vaekit.config.overrides import leaves
from vaekit.config.suggestions import did_you_mean
from vaekit.errors import UserError
from vaekit.runs.folder import Run
from vaekit.runs.metadata import Track, TrackerRecord, read_tracker, write_record
from vaekit.runs.metrics import Row
from vaekit.training.callbacks import Callback, TrainingState
from vaekit.training.loop import EpochResult
from vaekit.training.plan import Plan
from vaekit.training.trackers import TRACKERS, Epoch, Settings
from vaekit.utils.logging import log, status

PATIENCE_SECONDS = 120.0
"""At the end of training, a tracker that finishes no call for so long is given up."""
POLL_SECONDS = 0.25


class Tracking(Callback):
    """Hands metrics and pictures of both stages to a tracker, in a thread that opens it."""

    def __init__(self, run: Run, record: TrackerRecord, settings: Settings) -> None:
        self._run, self._record, self._settings = run, record, settings
        self._epochs: SimpleQueue[Epoch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="vaekit-tracker", daemon=True)
        self._active = 0.0
        self._finished = self._given_up = False

    def on_train_begin(self, state: TrainingState) -> None:
        if self._thread.ident is None:  # not in the second stage
            self._thread.start()

    def on_epoch_end(self, state: TrainingState, result: EpochResult, row: Row) -> None:
        run, number = state.run, state.progress.epoch
        stage = "" if run.folder == run.main else f"{run.folder.name}/"
        known = {name: value for name, value in row.items() if name != "step" and not math.isnan(value)}
        values = {f"{stage}{name}": value for name, value in known.items()}
        pictures = {
            f"{stage}samples": run.samples(number),
            f"{stage}reconstructions": run.reconstructions(number),
        }
        epoch = Epoch(f"{stage}step", int(row["step"]), values, pictures)
        # The pictures of this epoch are written before, by the same thread
        state.background.put(f"tracking {number}", lambda: self._epochs.put(epoch))

    def close(self, finished: bool) -> None:
        """Wait until everything is handed over, as long as the tracker responds."""
        if self._thread.ident is None:
            return
        self._finished, self._active = finished, time.monotonic()
        self._epochs.put(None)
        with status(f"Waiting for {self._record.track}"):
            while self._thread.is_alive() and time.monotonic() < self._active + PATIENCE_SECONDS:
                self._thread.join(POLL_SECONDS)
        if self._thread.is_alive():
            self._given_up = True
            log.warning(_stopped(self._record.track, f"no answer for {PATIENCE_SECONDS:.0f} seconds"))

    def _work(self) -> None:
        """Open the tracker, and hand epochs to it until there is None."""
        track = self._record.track
        try:
            tracker = TRACKERS[track](self._run, self._record.run_id, self._settings)
            record = TrackerRecord(track=track, run_id=tracker.run_id)
            write_record(self._run.tracker, record)
            log.info(f"Tracking with {track}: {tracker.place}")
            while epoch := self._epochs.get():
                drawn = {name: path for name, path in epoch.pictures.items() if path.exists()}
                tracker.log(replace(epoch, pictures=drawn))
                self._active = time.monotonic()
            tracker.close(self._finished)
        except Exception as error:  # of any of three libraries, their servers and the disk
            if not self._given_up:
                text = " ".join(str(error).split())[:200] or "no reason given"
                log.warning(_stopped(track, f"{type(error).__name__}: {text}"))


def require_tracker(track: Any) -> None:
    """Raise UserError if there is no such tracker, or its package is not installed."""
    names = get_args(Track)
    if track is None:
        return
    if track not in names:
        hint = did_you_mean(str(track), names)
        raise UserError(f"must be one of {', '.join(names)} (got {track!r}).", hint, "track")
    if not _is_installed(track):
        raise UserError(f"{track} is not installed.", f"Run `pip install 'vaekit[{track}]'`.")


@contextmanager
def tracking(plan: Plan, track: Track | None) -> Iterator[list[Callback]]:
    """The callback for a tracker, which is closed after the block; none without a tracker.

    Args:
        plan: of the first stage.
        track: the tracker; None for that of tracker.json, with which a resumed run began.
    """
    run, before = plan.run, read_tracker(plan.run)
    record = before if track is None or (before and before.track == track) else TrackerRecord(track=track)
    if record is None or not _imported(record.track):
        yield []
        return
    write_record(run.tracker, record)
    all_settings = {"preset": plan.metadata.preset, **leaves(plan.config.model_dump())}
    settings = {name: _plain(value) for name, value in all_settings.items() if value is not None}
    callback, finished = Tracking(run, record, settings), False
    try:
        yield [callback]
        finished = True
    finally:
        callback.close(finished)


def _imported(track: Track) -> bool:
    """Import the package of a tracker before training, which it would slow down; a warning if that fails."""
    try:
        with status(f"Loading {track}"):
            require_tracker(track)
            importlib.import_module(track)
    except Exception as error:
        log.warning(_stopped(track, str(error)))
        return False
    return True


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # wandb leaves folders of its name, which are none


def _stopped(track: str, reason: str) -> str:
    return f"Tracking with {track} stopped ({reason.rstrip('.')}). Training does not depend on it."


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
