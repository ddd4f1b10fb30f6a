"""Faults of a model, by its evaluation: each with a command that fixes it.

`tests/evaluation/test_diagnosis.py` trains a model with each fault, and models without any.
"""

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from vaekit.config.config import Config
from vaekit.evaluation import fixes
from vaekit.evaluation.results import EvaluationResult, Finding
from vaekit.runs.metrics import Row
from vaekit.runs.unfinished import Unfinished, has_risen

COLLAPSED_SHARE = 0.05
"""Share of active latents below which the posterior has collapsed."""
COLLAPSED_NATS = 0.1
"""KL divergence, in nats per image, below which a model does not use its latents."""
ROUGH_SHARE = 0.1
"""Rise of the training loss, as a share of all that the validation loss fell by, that is rough."""
ROUGH_NATS = 2.0
"""The least rise of the training loss that counts, in nats."""
MEMORIZED_ERROR_RATIO = 1.5
"""Held-out error over training error."""
MEMORIZED_VARIANCE = 0.02
"""Share of the pixels' variance explained in training images beyond that in held-out images."""
FEW_IMAGES = 2000
"""Number of training images below which more of them are needed."""
MIN_EXPLAINED = 0.5
"""Share of the pixels' variance that reconstructions of training images should explain."""
NOISE_RATIO = 1.5
"""The likelihood's noise level over the reconstruction error."""
HELD_OUT_FOLDERS = ("val", "validation", "test")
"""Folders whose images the user held out."""
MAX_DUPLICATES = 0.01
"""Share of held-out images that may be duplicates of training images."""
Fault = tuple[str, str] | None
"""The explanation of a fault and the command that fixes it; None without the fault."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisInput:
    """A run and its evaluation."""

    config: Config
    result: EvaluationResult
    history: Sequence[Row]
    """The rows of metrics.csv after the objective's schedules had ended."""
    loss_drop: float
    """From the validation loss of the first epoch to the lowest; always at the final schedules."""
    unfinished: Unfinished | None
    training_images: int
    run: str
    """The run's folder, for commands."""
    retrain_command: Callable[..., str]
    """The command that trains another run with the first valid one of some changes of settings."""
    resume_command: Callable[[int | None], str]
    """The command that resumes the run, to a number of epochs if given."""

    @property
    def kl(self) -> float | None:
        return None if self.result.likelihood is None else self.result.likelihood.kl

    @property
    def collapsed(self) -> bool:
        """Hardly any latent depends on the image, or where images are too few to count latents, the KL
        divergence is nearly zero."""
        latents = self.result.latents
        if latents.active is None:
            return self.kl is not None and abs(self.kl) < COLLAPSED_NATS
        return latents.active < max(1, COLLAPSED_SHARE * latents.total)

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
        larger = self.error_ratio > MEMORIZED_ERROR_RATIO and lead > MEMORIZED_VARIANCE
        return self.result.same_dataset and larger

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


def diagnose(inputs: DiagnosisInput) -> list[Finding]:
    """All faults, the most serious first; of an unfinished run nothing else, since its faults may vanish."""
    if inputs.unfinished:
        fix = inputs.resume_command(inputs.unfinished.epochs)
        return [Finding(name="unfinished training", message=inputs.unfinished.text, fix=fix)]
    faults = {name: check(inputs) for name, check in CHECKS.items()}
    return [Finding(name=name, message=fault[0], fix=fault[1]) for name, fault in faults.items() if fault]


def duplicates(m: DiagnosisInput) -> Fault:
    memorization, same_dataset = m.result.memorization, m.result.same_dataset
    if memorization is None or memorization.duplicates <= MAX_DUPLICATES:
        return None
    text = (
        f"{memorization.duplicates:.0%} of the held-out images are also in the training set, which makes "
        "the scores too good. Remove the duplicates listed in evaluation.json"
    )
    folder = memorization.duplicate_files[0][0].split("/")[0].lower()
    if same_dataset and folder not in HELD_OUT_FOLDERS:
        last = {"validation": f"last:{max(1, m.training_images // 9)}"}
        return f"{text} or, for frames of a video, hold out the last images.", m.retrain_command(last)
    data = m.result.data if Path(m.result.data).exists() else "DATA"
    evaluate_command = f"vaekit evaluate {shlex.quote(m.run)} --data {shlex.quote(data)}"
    return f"{text}, then run the command.", m.retrain_command({}) if same_dataset else evaluate_command


def rough_training(m: DiagnosisInput) -> Fault:
    if not m.loss_rise:
        return None
    text = f"The training loss rose by {m.loss_rise:,.0f} nats on the way: the steps are too large."
    return text, m.retrain_command({"learning_rate": float(f"{m.config.training.learning_rate / 5:.1g}")})


def collapse(m: DiagnosisInput) -> Fault:
    if not m.collapsed:
        return None
    latents, beta = m.result.latents, getattr(m.config.objective, "beta", 1.0)
    because = f", because beta = {beta:g} penalizes them" if beta > 1 else ""
    if latents.active is None:
        text = f"The KL is {m.kl:.2f} nats per image: the decoder has learned to ignore the latents{because}."
    else:
        kl = "" if m.kl is None else f" (KL {m.kl:.2f} nats)"
        active = f"{latents.active} of {latents.total} latents are active{kl}"
        text = f"{active}: the decoder has learned to ignore the rest{because}."
    return text, m.retrain_command(*fixes.weaker_kl(m.config))


def noise_level(m: DiagnosisInput) -> Fault:
    likelihood: Any = m.config.likelihood
    if getattr(likelihood, "sigma", None) != "fixed":
        return None
    error = math.sqrt(m.result.reconstruction.mse)
    if likelihood.scale <= NOISE_RATIO * error:
        return None
    text = (
        f"The noise level is fixed at {likelihood.scale:.3g}, but the reconstruction error is only "
        f"{error:.3g}, so the model has no reason to learn finer detail."
    )
    return text, m.retrain_command({"likelihood": {"sigma": "learned"}})


def little_data(m: DiagnosisInput) -> Fault:
    if not m.memorized or m.training_images >= FEW_IMAGES:
        return None
    text = (
        f"The held-out reconstruction error is {m.error_ratio:.1f}x the training error: "
        f"{m.training_images:,} training images are too few. Add images if you can; flips and crops also "
        "help."
    )
    return text, m.retrain_command(*fixes.varied_images(m.config))


def overfitting(m: DiagnosisInput) -> Fault:
    losses = [row["val_loss"] for row in m.history]
    overfitted = has_risen(losses, m.loss_drop)
    memorized = m.memorized and m.training_images >= FEW_IMAGES
    if m.collapsed or (not (overfitted and len(losses) > 3) and not memorized):
        return None
    text = f"The held-out reconstruction error is {m.error_ratio:.1f}x the training error"
    if overfitted:
        best = m.history[losses.index(min(losses))]
        text = (
            f"The validation loss was lowest in epoch {best['epoch']:.0f} of {m.history[-1]['epoch']:.0f} "
            f"and has risen by {losses[-1] - min(losses):,.1f} nats since"
        )
    text += (
        ": the model is memorizing its training images. The best epoch's weights were kept; augmentation and "
        "early stopping save the remaining epochs."
    )
    patience = m.config.training.patience or 10
    return text, m.retrain_command(*fixes.varied_images(m.config, patience=patience))


def underfitting(m: DiagnosisInput) -> Fault:
    training = m.result.training_reconstruction
    explained = None if training is None else training.explained_variance
    if explained is None or explained >= MIN_EXPLAINED:
        return None
    if m.collapsed or m.memorized:
        return None  # another finding explains it
    text = (
        f"Reconstructions explain only {max(0.0, explained):.0%} of the variance even of training images: "
        f"the model is too small ({m.result.latents.total} latents) or too strongly regularized."
    )
    return text, m.retrain_command(*fixes.more_capacity(m.config))


CHECKS: dict[str, Callable[[DiagnosisInput], Fault]] = {
    "duplicates across the split": duplicates,
    "learning rate too high": rough_training,
    "posterior collapse": collapse,
    "noise level too high": noise_level,
    "too little data": little_data,
    "overfitting": overfitting,
    "underfitting": underfitting,
}
