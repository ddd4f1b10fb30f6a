"""The run folder: its paths and its lock. Every file of a run is named here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vaekit.errors import UserError, setting


@dataclass(frozen=True)
class Run:
    """The paths of a run's files."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset.json"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def data_preview(self) -> Path:
        return self.folder / "data.png"

    @property
    def loss_graph(self) -> Path:
        return self.folder / "loss.png"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def latent_prior(self) -> Path:
        return self.folder / "latent_prior.safetensors"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def nearest(self) -> Path:
        return self.folder / "nearest.png"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def samples(self, epoch: int) -> Path:
        return self.folder / "samples" / f"epoch_{epoch:04d}.png"

    def reconstructions(self, epoch: int) -> Path:
        return self.folder / "reconstructions" / f"epoch_{epoch:04d}.png"

    def exists(self) -> bool:
        return self.config.exists()


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Lock the run folder for this process; the lock ends with the process, however it ends.

    Raises:
        UserError: another process has locked it.
    """
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        handle = (run.folder / ".lock").open("w")
    except OSError as error:
        reason = f"Cannot write to {run.folder} ({error.strerror})."
        raise UserError(reason, f"Choose another {setting('out')}.") from None
    with handle as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"{run.folder} is in use by another process.",
                    f"Wait for it, or choose another {setting('out')}.",
                ) from None
        yield
