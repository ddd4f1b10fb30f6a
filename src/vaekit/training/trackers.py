"""Trackers: metrics, pictures and settings of a run in TensorBoard, Weights & Biases or MLflow."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vaekit.errors import UserError
from vaekit.runs.folder import Run
from vaekit.runs.metadata import Track

PROJECT = "vaekit"
"""Project of wandb and experiment of MLflow, unless their environment variables name another."""
MAX_PARAMS = 100
"""Parameters in a request to MLflow, which refuses more."""

Settings = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class Epoch:
    """What a tracker is given after an epoch. Names of the second stage begin with `latent_prior/`."""

    clock: str
    """Name of the steps, which each stage counts from 0."""
    step: int
    values: Mapping[str, float]
    """The other columns of metrics.csv."""
    pictures: Mapping[str, Path]
    """PNG files."""


class Tracker(Protocol):
    """An open run of a tracker. Any of its calls may fail."""

    run_id: str
    place: str
    """Where to look at it."""

    def log(self, epoch: Epoch) -> None: ...

    def close(self, finished: bool) -> None: ...


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, run: Run, run_id: str | None, settings: Settings) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.run_id = run_id or "tensorboard"
        self.place = f"tensorboard --logdir {run.folder}"
        self._writer = SummaryWriter(str(run.folder / self.run_id))
        if run_id is None and (file := self._writer.file_writer):
            for summary in hparams(dict(settings), {"val_loss": 0.0}):
                file.add_summary(summary)

    def log(self, epoch: Epoch) -> None:
        import numpy as np
        from PIL import Image

        for name, value in epoch.values.items():
            self._writer.add_scalar(name, value, epoch.step)
        for name, path in epoch.pictures.items():
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._writer.add_image(name, pixels, epoch.step, dataformats="HWC")
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, whose local files are in the folder `wandb` of the run."""

    def __init__(self, run: Run, run_id: str | None, settings: Settings) -> None:
        import wandb

        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise UserError("There is no API key.", "Run `wandb login`, or set WANDB_MODE=offline.")
        self._to_image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=_name(run),
            dir=str(run.folder),
            id=run_id,
            resume="allow",
            config=dict(settings) if run_id is None else None,
            reinit="create_new",  # a run that is open in this process stays apart
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run_id = self._run.id
        offline = self._run.offline
        self.place = f"wandb sync {run.folder}/wandb/offline-run-*" if offline else self._run.url or ""

    def log(self, epoch: Epoch) -> None:
        pictures = {name: self._to_image(str(path)) for name, path in epoch.pictures.items()}
        for name in (*epoch.values, *pictures):
            self._run.define_metric(name, step_metric=epoch.clock)
        self._run.log({epoch.clock: epoch.step, **epoch.values, **pictures})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of MLflow, in the store that MLFLOW_TRACKING_URI names."""

    def __init__(self, run: Run, run_id: str | None, settings: Settings) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        self.place = f"experiment {name}, run {_name(run)}"
        if run_id is not None:
            self.run_id = run_id
            client.update_run(run_id, status="RUNNING")
            return
        experiment = client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else client.create_experiment(name)
        self.run_id = client.create_run(number, run_name=_name(run)).info.run_id
        params = [Param(name, str(value)) for name, value in settings.items()]
        for start in range(0, len(params), MAX_PARAMS):
            client.log_batch(self.run_id, params=params[start : start + MAX_PARAMS])

    def log(self, epoch: Epoch) -> None:
        from mlflow.entities import Metric
        from PIL import Image

        now = round(1000 * time.time())
        metrics = [Metric(name, value, now, epoch.step) for name, value in epoch.values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)
        for name, path in epoch.pictures.items():
            with Image.open(path) as picture:
                self._client.log_image(self.run_id, picture, key=name, step=epoch.step)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self.run_id, "FINISHED" if finished else "FAILED")


def _name(run: Run) -> str:
    return run.folder.resolve().name


TRACKERS: dict[Track, Callable[[Run, str | None, Settings], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}
"""By name, which is also that of the package and of the extra that installs it."""
