"""Saving and restoring a training session."""

from dataclasses import asdict, replace
from typing import Any

from vaekit.errors import UserError, setting
from vaekit.runs.checkpoint import Snapshot, newest_checkpoint, write_checkpoint, write_weights
from vaekit.runs.metrics import Row, keep_metrics, read_metrics
from vaekit.training.callbacks import BestEpoch, Callback, TrainingState
from vaekit.training.data_init import init_from_data
from vaekit.training.loop import Diverged, EpochResult, Progress
from vaekit.training.transfer import take_weights
from vaekit.utils.logging import log


class Checkpoints(Callback):
    """Writes checkpoints: the newest few, the best epoch's, and with that the weights to use."""

    def __init__(self) -> None:
        self.best: Snapshot | None = None
        """Of the best epoch, if it was in this session."""
        self.best_written: Snapshot | None = None

    def on_epoch_end(self, state: TrainingState, result: EpochResult, row: Row) -> None:
        if state.improved:
            self.best = _snapshot(state)
        if state.background.ready("checkpoint"):
            self._save(state)

    def on_train_end(self, state: TrainingState) -> None:
        self._save(state)

    def _save(self, state: TrainingState) -> None:
        best = self.best
        current = best if best is not None and best.step == state.progress.step else _snapshot(state)
        if not all(bool(t.isfinite().all()) for t in current.raw.values() if t.is_floating_point()):
            raise Diverged("the weights are no longer finite")

        def write() -> None:
            if best is not None and best is not self.best_written:
                write_checkpoint(state.run, best)
                write_weights(state.run.weights, best.ema)
                self.best_written = best
            if current is not best:
                write_checkpoint(state.run, current)

        state.background.put("checkpoint", write)


def restore(state: TrainingState) -> None:
    """Continue from the newest checkpoint of the run, or where there is none, start from the data and
    the weights of the run that it names, if any.

    Raises:
        UserError: the run holds trained weights but no checkpoint to continue from.
    """
    if newest_checkpoint(state.run) is None and state.run.weights.exists():
        raise UserError(
            f"{state.run.folder} holds a trained model but no intact checkpoint to resume from.",
            f"The model can be used as it is. To train a new one, choose another {setting('out')}.",
        )
    if not resume(state):
        models: Any = (state.train_step.model, state.train_step.ema.model)
        init_from_data(models, state.loader, state.plan.config.training.seed)
        take_weights(models, state.plan.metadata)


def resume(state: TrainingState) -> bool:
    """Continue from the newest checkpoint; whether there is one. Without, there are no metrics."""
    snapshot = newest_checkpoint(state.run)
    if snapshot is None:
        keep_metrics(state.run, [])
        return False
    if snapshot.state["best_step"] == snapshot.step:  # the run may have ended between these two writes
        write_weights(state.run.weights, snapshot.ema)
    progress, counts = _read_state(snapshot.state)
    state.train_step.load_state_dict(replace(snapshot, state=counts))
    state.progress = progress
    state.best = BestEpoch(**snapshot.state["best"])
    keep_metrics(state.run, [row for row in read_metrics(state.run) if row["epoch"] <= progress.epoch])
    log.info(f"Resuming in {state.name} {progress.epoch + 1}, after step {progress.step:,}")
    return True


def _snapshot(state: TrainingState) -> Snapshot:
    snapshot, progress, best = state.train_step.state_dict(), asdict(state.progress), asdict(state.best)
    record = {name: progress[name] for name in ("step", "epoch")}
    record |= {"best_step": best["step"], "best": best, "progress": progress}
    return replace(snapshot, state=record | snapshot.state)


def _read_state(state: dict[str, Any]) -> tuple[Progress, dict[str, Any]]:
    """Progress and the counts of `TrainStep` from state.json; vaekit 0.1.0 had other names for them."""
    progress = dict(state["progress"])
    counts = {
        "micro_batches": state.get("micro_batches", progress.pop("pieces", 1)),
        "eval_micro_batches": state.get("eval_micro_batches", progress.pop("held_out_pieces", 1)),
    }
    if "done" in progress:
        progress["steps_in_epoch"] = progress.pop("done")
    return Progress(**progress), counts
