"""What is wrong with a model, by what was measured: each fault with the command that mends it.

Every check is a function of `DiagnosisInput` that returns a finding or None; `tests/evaluation/test_diagnosis.py`
builds a model that has the fault and models that have none.
"""

import math
import shlex
from collections.abc import Callable
from pathlib import Path

from vaekit.evaluation import fixes
from vaekit.evaluation.diagnosis_input import MIN_STEPS, DiagnosisInput
from vaekit.evaluation.results import Finding

UNUSED_SHARE = 0.5
"""Share of active latents below which there are more than are of use."""


MAX_FEW_LATENTS = 8
"""Latents that are never called too many."""


OVERFITTED_SHARE = 0.02
"""Rise of the validation loss after its minimum, as a share of all that it fell by."""


OVERFITTED_NATS = 0.5
"""The least rise of the validation loss that counts, in nats."""


FEW_IMAGES = 2000
"""Training images below which more of them are the remedy."""


MIN_EXPLAINED = 0.5
"""Share of the pixels' variance that reconstructions of training images should have."""


NOISE_RATIO = 1.5
"""The likelihood's noise over the error that there is."""


MISMATCH_SHARE = 0.15
"""Nats lost to the prior, as a share of the KL, that are a mismatch."""


MISMATCH_NATS = 2.0
"""The least loss to the prior that counts, in nats."""


HELD_OUT_FOLDERS = ("val", "validation", "test")
"""Folders of images that were held out by hand."""


MAX_DUPLICATES = 0.01
"""Share of held-out images that stand among the training images."""


def diagnose(inputs: DiagnosisInput) -> list[Finding]:
    """All faults found, the gravest first."""
    findings = [check(inputs) for check in CHECKS]
    return [finding for finding in findings if finding is not None]


def duplicates(m: DiagnosisInput) -> Finding | None:
    memorization = m.result.memorization
    if memorization is None or memorization.duplicates <= MAX_DUPLICATES:
        return None
    text = (
        f"{memorization.duplicates:.0%} of the held-out images stand among the training images too, so that "
        "figures of theirs flatter the model: take the copies out (evaluation.json names their files)"
    )
    if m.result.same_dataset and memorization.duplicate_files[0][0].split("/")[0].lower() not in HELD_OUT_FOLDERS:
        last = {"validation": f"last:{max(1, m.training_images // 9)}"}
        advice = ", or, where images follow one another like those of a film, hold out the last of them."
        return Finding(name="duplicates across the split", message=text + advice, fix=m.retrain_command(last))
    data = m.result.data if Path(m.result.data).exists() else "DATA"
    evaluate_command = f"vaekit evaluate {shlex.quote(m.run)} --data {shlex.quote(data)}"
    fix = m.retrain_command({}) if m.result.same_dataset else evaluate_command
    return Finding(name="duplicates across the split", message=f"{text}, then:", fix=fix)


def rough_training(m: DiagnosisInput) -> Finding | None:
    if not m.loss_rise:
        return None
    return Finding(
        name="learning rate too high",
        message=f"The training loss rose by {m.loss_rise:,.0f} nats on the way, where it should fall: "
        "the steps are too large.",
        fix=m.retrain_command({"learning_rate": float(f"{m.config.training.learning_rate / 5:.1g}")}),
    )


def collapse(m: DiagnosisInput) -> Finding | None:
    if not m.collapsed or m.undertrained:
        return None
    latents, beta = m.result.latents, getattr(m.config.objective, "beta", 1.0)
    kl = "" if m.kl is None else f"; the KL is {m.kl:.2f} nats"
    return Finding(
        name="posterior collapse",
        message=f"{latents.active} of {latents.total} latents depend on the image{kl}: "
        f"the decoder has learned to do without them{f', pressed by beta = {beta:g}' if beta > 1 else ''}.",
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
        message=f"The likelihood takes the noise of a pixel to be {scale:.3g}, where reconstructions are {error:.3g} "
        "off: what is finer than its noise it need not learn.",
        fix=m.retrain_command({"likelihood": {"sigma": "learned"}}),
    )


def too_few_epochs(m: DiagnosisInput) -> Finding | None:
    if not m.falling or m.loss_rise or (m.collapsed and not m.undertrained):
        return None
    epochs, requested = max(1, round(m.history[-1]["epoch"])), m.config.training.epochs
    only = f" and {m.steps:,} steps, where {MIN_STEPS:,} are few" if m.undertrained else ""
    return Finding(
        name="too few epochs",
        message=f"The validation loss still fell at the end, after {epochs} epoch{'s' * (epochs > 1)}{only}.",
        fix=m.resume_command(max(2 * requested, math.ceil(requested * MIN_STEPS / max(1, m.steps)))),
    )


def little_data(m: DiagnosisInput) -> Finding | None:
    if not m.memorized or m.training_images >= FEW_IMAGES:
        return None
    return Finding(
        name="too little data",
        message=f"Reconstructions of held-out images are {m.error_ratio:.1f} times as far off as those of training "
        f"images: {m.training_images:,} images are few to learn from. More help most; mirrored and shifted "
        "ones are some.",
        fix=m.retrain_command(*fixes.varied_images(m.config)),
    )


def overfitting(m: DiagnosisInput) -> Finding | None:
    losses = [row["val_loss"] for row in m.history]
    overfitted = losses and losses[-1] - min(losses) > max(OVERFITTED_NATS, OVERFITTED_SHARE * m.loss_drop)
    memorized = m.memorized and m.training_images >= FEW_IMAGES
    if m.collapsed or (not (overfitted and len(losses) > 3) and not memorized):
        return None
    text = (
        f"The validation loss was best in epoch {m.history[losses.index(min(losses))]['epoch']:.0f} of "
        f"{m.history[-1]['epoch']:.0f} and has risen by "
        f"{losses[-1] - min(losses):,.1f} nats since"
        if overfitted
        else f"Reconstructions of held-out images are {m.error_ratio:.1f} times as far off as those of training images"
    )
    return Finding(
        name="overfitting",
        message=f"{text}: the model learns its training images by heart. The weights kept are those of the best epoch; "
        "varied images and an early stop spare the rest.",
        fix=m.retrain_command(*fixes.varied_images(m.config, patience=m.config.training.patience or 10)),
    )


def underfitting(m: DiagnosisInput) -> Finding | None:
    training = m.result.training_reconstruction
    explained = None if training is None else training.explained_variance
    if explained is None or explained >= MIN_EXPLAINED:
        return None
    if m.collapsed or m.falling or m.memorized:
        return None  # a fault of its own, which explains this one
    return Finding(
        name="underfitting",
        message=f"Reconstructions have {max(0.0, explained):.0%} of the variance even of training images: the model "
        f"is too small for them, with {m.result.latents.total} latents, or held back.",
        fix=m.retrain_command(*fixes.more_capacity(m.config)),
    )


def prior_mismatch(m: DiagnosisInput) -> Finding | None:
    gap = m.result.prior_gap
    if gap is None or m.falling or gap.gain <= max(MISMATCH_NATS, MISMATCH_SHARE * (m.kl or 0)):
        return None
    information = gap.mutual_information_bound
    given = ", given its class" if m.config.conditional else ""
    most = None if information is None else f"{max(0.0, information):.1f} nats of an image{given}"
    limit = "" if most is None else f"; beside it the latents carry at most {most}"
    return Finding(
        name="prior mismatch",
        message=f"Its own prior is {gap.gain:.1f} nats per image from what the encoder does{limit}. New images "
        "are drawn from a fitted prior, so they do not suffer; what follows would take the nats off the loss too.",
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
        message=f"{active} of {latents} latents depend on the image: fewer would do as well, and make the latent space "
        "easier to explore.",
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
