"""Faults of a model, from what was measured: each with a command that fixes it.

Every check takes a `DiagnosisInput` and returns a finding or None. `tests/evaluation/test_diagnosis.py`
trains a model with each fault, and models without any.
"""

import math
import shlex
from collections.abc import Callable
from pathlib import Path

from vaekit.evaluation import fixes
from vaekit.evaluation.diagnosis_input import MIN_STEPS, DiagnosisInput
from vaekit.evaluation.results import Finding

UNUSED_SHARE = 0.5
"""Share of active latents below which there are too many latents."""
MAX_FEW_LATENTS = 8
"""Number of latents that is never called too many."""
OVERFITTED_SHARE = 0.02
"""Rise of the validation loss after its minimum, as a share of all that it fell by."""
OVERFITTED_NATS = 0.5
"""The least rise of the validation loss that counts, in nats."""
FEW_IMAGES = 2000
"""Number of training images below which more of them are needed."""
MIN_EXPLAINED = 0.5
"""Share of the pixels' variance that reconstructions of training images should explain."""
NOISE_RATIO = 1.5
"""The likelihood's noise level over the reconstruction error."""
MISMATCH_SHARE = 0.15
"""Nats lost to the prior, as a share of the KL, that are a mismatch."""
MISMATCH_NATS = 2.0
"""The least loss to the prior that counts, in nats."""
HELD_OUT_FOLDERS = ("val", "validation", "test")
"""Folders whose images were held out by the user."""
MAX_DUPLICATES = 0.01
"""Share of held-out images that may be duplicates of training images."""


def diagnose(inputs: DiagnosisInput) -> list[Finding]:
    """All faults, the most serious first."""
    findings = [check(inputs) for check in CHECKS]
    return [finding for finding in findings if finding is not None]


def duplicates(m: DiagnosisInput) -> Finding | None:
    memorization = m.result.memorization
    if memorization is None or memorization.duplicates <= MAX_DUPLICATES:
        return None
    text = (
        f"{memorization.duplicates:.0%} of the held-out images are also in the training set, which makes "
        "the scores too good. Remove the duplicates listed in evaluation.json"
    )
    if (
        m.result.same_dataset
        and memorization.duplicate_files[0][0].split("/")[0].lower() not in HELD_OUT_FOLDERS
    ):
        last = {"validation": f"last:{max(1, m.training_images // 9)}"}
        advice = " or, for frames of a video, hold out the last images."
        return Finding(name="duplicates across the split", message=text + advice, fix=m.retrain_command(last))
    data = m.result.data if Path(m.result.data).exists() else "DATA"
    evaluate_command = f"vaekit evaluate {shlex.quote(m.run)} --data {shlex.quote(data)}"
    fix = m.retrain_command({}) if m.result.same_dataset else evaluate_command
    return Finding(name="duplicates across the split", message=f"{text}, then run the command.", fix=fix)


def rough_training(m: DiagnosisInput) -> Finding | None:
    if not m.loss_rise:
        return None
    return Finding(
        name="learning rate too high",
        message=f"The training loss rose by {m.loss_rise:,.0f} nats on the way: the steps are too large.",
        fix=m.retrain_command({"learning_rate": float(f"{m.config.training.learning_rate / 5:.1g}")}),
    )


def collapse(m: DiagnosisInput) -> Finding | None:
    if not m.collapsed or m.undertrained:
        return None
    latents, beta = m.result.latents, getattr(m.config.objective, "beta", 1.0)
    kl = "" if m.kl is None else f" (KL {m.kl:.2f} nats)"
    return Finding(
        name="posterior collapse",
        message=f"{latents.active} of {latents.total} latents are active{kl}: the decoder has learned to "
        f"ignore the rest{f', because beta = {beta:g} penalizes them' if beta > 1 else ''}.",
        fix=m.retrain_command(*fixes.weaker_kl(m.config)),
    )


def noise_level(m: DiagnosisInput) -> Finding | None:
    likelihood = m.config.likelihood
    if getattr(likelihood, "sigma", None) != "fixed":
        return None
    scale = float(likelihood.scale)  # type: ignore[union-attr]
    error = math.sqrt(m.result.reconstruction.mse)
    if scale <= NOISE_RATIO * error:
        return None
    return Finding(
        name="noise level too high",
        message=f"The noise level is fixed at {scale:.3g}, but the reconstruction error is only "
        f"{error:.3g}, so the model has no reason to learn finer detail.",
        fix=m.retrain_command({"likelihood": {"sigma": "learned"}}),
    )


def too_few_epochs(m: DiagnosisInput) -> Finding | None:
    if not m.falling or m.loss_rise or (m.collapsed and not m.undertrained):
        return None
    epochs, requested = max(1, round(m.history[-1]["epoch"])), m.config.training.epochs
    plural = "s" if epochs > 1 else ""
    text = f"The validation loss was still falling after {epochs} epoch{plural}."
    if m.undertrained:
        text = (
            f"The validation loss was still falling after {epochs} epoch{plural} ({m.steps:,} steps; most "
            "models need several thousand)."
        )
    return Finding(
        name="too few epochs",
        message=text,
        fix=m.resume_command(max(2 * requested, math.ceil(requested * MIN_STEPS / max(1, m.steps)))),
    )


def little_data(m: DiagnosisInput) -> Finding | None:
    if not m.memorized or m.training_images >= FEW_IMAGES:
        return None
    return Finding(
        name="too little data",
        message=f"The held-out reconstruction error is {m.error_ratio:.1f}x the training error: "
        f"{m.training_images:,} training images are too few. Add images if you can; flips and crops also "
        "help.",
        fix=m.retrain_command(*fixes.varied_images(m.config)),
    )


def overfitting(m: DiagnosisInput) -> Finding | None:
    losses = [row["val_loss"] for row in m.history]
    overfitted = losses and losses[-1] - min(losses) > max(OVERFITTED_NATS, OVERFITTED_SHARE * m.loss_drop)
    memorized = m.memorized and m.training_images >= FEW_IMAGES
    if m.collapsed or (not (overfitted and len(losses) > 3) and not memorized):
        return None
    text = (
        f"The validation loss was lowest in epoch {m.history[losses.index(min(losses))]['epoch']:.0f} of "
        f"{m.history[-1]['epoch']:.0f} and has risen by {losses[-1] - min(losses):,.1f} nats since"
        if overfitted
        else f"The held-out reconstruction error is {m.error_ratio:.1f}x the training error"
    )
    return Finding(
        name="overfitting",
        message=f"{text}: the model is memorizing its training images. The best epoch's weights were kept; "
        "augmentation and early stopping save the remaining epochs.",
        fix=m.retrain_command(*fixes.varied_images(m.config, patience=m.config.training.patience or 10)),
    )


def underfitting(m: DiagnosisInput) -> Finding | None:
    training = m.result.training_reconstruction
    explained = None if training is None else training.explained_variance
    if explained is None or explained >= MIN_EXPLAINED:
        return None
    if m.collapsed or m.falling or m.memorized:
        return None  # another finding explains it
    return Finding(
        name="underfitting",
        message=f"Reconstructions explain only {max(0.0, explained):.0%} of the variance even of training "
        f"images: the model is too small ({m.result.latents.total} latents) or too strongly regularized.",
        fix=m.retrain_command(*fixes.more_capacity(m.config)),
    )


def prior_mismatch(m: DiagnosisInput) -> Finding | None:
    gap = m.result.prior_gap
    if gap is None or m.falling or gap.gain <= max(MISMATCH_NATS, MISMATCH_SHARE * (m.kl or 0)):
        return None
    information = ""
    if gap.mutual_information_bound is not None:
        given = " given its class" if m.config.conditional else ""
        limit = max(0.0, gap.mutual_information_bound)
        information = f"; they carry at most {limit:.1f} nats about an image{given}"
    return Finding(
        name="prior mismatch",
        message=f"The prior does not match the latents: it loses {gap.gain:.1f} nats per "
        f"image{information}. Generated images are unaffected, because a fitted prior is used; a better "
        "match would also lower the loss.",
        fix=m.retrain_command(*fixes.closer_prior(m.config)),
    )


def unused_latents(m: DiagnosisInput) -> Finding | None:
    active, latents = m.result.latents.active, m.result.latents.total
    if (
        active is None
        or m.collapsed
        or m.undertrained
        or latents <= MAX_FEW_LATENTS
        or active >= UNUSED_SHARE * latents
        or not str(m.config.latents).isdecimal()
    ):
        return None
    return Finding(
        name="unused latents",
        message=f"Only {active} of {latents} latents are active. Fewer would do as well and make the latent "
        "space easier to explore.",
        fix=m.retrain_command({"latents": max(2, math.ceil(1.25 * active))}),
    )


CHECKS: tuple[Callable[[DiagnosisInput], Finding | None], ...] = (
    duplicates,
    rough_training,
    collapse,
    noise_level,
    too_few_epochs,
    little_data,
    overfitting,
    underfitting,
    prior_mismatch,
    unused_latents,
)
