"""The run folder: its paths and its lock. Every file of a run is named here."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaekit.errors import UserError, setting
from vaekit.utils.files import lock


class Run:
    """The paths of a run's files."""

    def __init__(self, folder: Path, main: Path | None = None) -> None:
        self.folder = folder
        self.main = main or folder
        """The folder that `--resume` takes: another one for the second stage."""
        self.config = folder / "config.json"
        self.dataset = folder / "dataset.json"
        self.tracker = folder / "tracker.json"
        self.metrics = folder / "metrics.csv"
        self.data_preview = folder / "data.png"
        self.loss_graph = folder / "loss.png"
        self.log = folder / "log.txt"
        self.weights = folder / "model.safetensors"
        self.encoded_by = folder / "weights.txt"
        """In the second stage's folder: the hash of the weights whose latents it is trained on."""
        self.latent_prior = folder / "latent_prior.safetensors"
        self.evaluation = folder / "evaluation.json"
        self.nearest = folder / "nearest.png"
        self.report = folder / "report.html"
        self.explorer = folder / "explorer"
        """What `vaekit explore` has computed, by weights."""
        self.card = folder / "README.md"
        self.new_images = folder / "samples.png"
        """Of a published model, as is the model card."""
        self.checkpoints = folder / "checkpoints"

    @property
    def second_stage(self) -> "Run":
        """The files of the second stage, in a folder of the run."""
        return Run(self.folder / "latent_prior", self.folder)

    def samples(self, epoch: int) -> Path:
        """New images after an epoch; those of the second stage are in the same folder, last by name."""
        stage = "" if self.folder == self.main else f"{self.folder.name}_"
        return self.main / "samples" / f"{stage}epoch_{epoch:04d}.png"

    def reconstructions(self, epoch: int) -> Path:
        return self.folder / "reconstructions" / f"epoch_{epoch:04d}.png"

    def exists(self) -> bool:
        return self.config.exists()


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Lock the run folder, or raise UserError; the lock ends with the block or the process."""
    hint = f"choose another {setting('out')}."
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        file = (run.folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"Cannot write to {run.folder} ({error.strerror}).", hint.capitalize()) from None
    with file:
        if not lock(file):
            raise UserError(f"{run.folder} is in use by another process.", f"Wait for it, or {hint}")
        yield
