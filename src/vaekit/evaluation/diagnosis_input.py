"""The quantities that the checks of a diagnosis use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from vaekit.config.config import Config
from vaekit.evaluation.results import EvaluationResult
from vaekit.runs.metrics import Row, still_falling

COLLAPSED_SHARE = 0.05
"""Share of active latents below which the posterior has collapsed."""
MIN_STEPS = 1000
"""Steps below which a model whose loss still falls has only begun to learn."""
ROUGH_SHARE = 0.1
"""Rise of the training loss, as a share of all that the validation loss fell by, that is rough."""
ROUGH_NATS = 2.0
"""The least rise of the training loss that counts, in nats."""
MEMORIZED_ERROR_RATIO = 1.5
"""Held-out error over training error."""
MEMORIZED_VARIANCE = 0.02
"""Share of the pixels' variance explained in training images beyond that in held-out images."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisInput:
    """A run and its evaluation."""

    config: Config
    result: EvaluationResult
    history: Sequence[Row]
    """The rows of metrics.csv after the objective's schedules had ended."""
    loss_drop: float
    """From the validation loss of the first epoch to the lowest; always at the final schedules."""
    steps: int
    training_images: int
    run: str
    """The run's folder, for commands."""
    retrain_command: Callable[..., str]
    """The command that trains another run with the first valid one of some changes of settings."""
    resume_command: Callable[[int], str]
    """The command that resumes the run to a number of epochs."""

    @property
    def kl(self) -> float | None:
        return None if self.result.likelihood is None else self.result.likelihood.kl

    @property
    def collapsed(self) -> bool:
        """Hardly any latent depends on the image."""
        latents = self.result.latents
        return latents.active is not None and latents.active < max(1, COLLAPSED_SHARE * latents.total)

    @property
    def error_ratio(self) -> float:
        """The mean squared error of held-out reconstructions over that of training images."""
        training = self.result.training_reconstruction
        return self.result.reconstruction.mse / max(training.mse, 1e-9) if training else 1.0

    @property
    def memorized(self) -> bool:
        """Training images are reconstructed visibly better than held-out images of the same data set."""
        held_out, training = self.result.reconstruction, self.result.training_reconstruction
        if training is None or held_out.explained_variance is None or training.explained_variance is None:
            return False
        lead = training.explained_variance - held_out.explained_variance
        return (
            self.result.same_dataset
            and self.error_ratio > MEMORIZED_ERROR_RATIO
            and lead > MEMORIZED_VARIANCE
        )

    @property
    def falling(self) -> bool:
        """Whether the validation loss still fell at a good rate when training ended."""
        constant = self.config.training.schedule == "constant"
        return constant and still_falling([row["val_loss"] for row in self.history], self.loss_drop)

    @property
    def undertrained(self) -> bool:
        """Training has only begun: faults may vanish with more steps."""
        return self.falling and self.steps < MIN_STEPS

    @property
    def loss_rise(self) -> float:
        """The largest rise of the training loss above its lowest so far, in nats; 0 where that is small."""
        losses = [row["train_loss"] for row in self.history]
        if len(losses) < 3:
            return 0.0
        lowest = list(accumulate(losses, min))
        rise = max(loss - before for loss, before in zip(losses, lowest, strict=True))
        small = max(ROUGH_NATS, ROUGH_SHARE * max(self.loss_drop, losses[0] - lowest[-1]))
        return 0.0 if rise <= small else rise
