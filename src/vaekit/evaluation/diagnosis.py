"""What is wrong with a model, in plain English, by what was measured: each fault with the command that mends it.

Every check is a function of `DiagnosisInput` that returns a finding or None; its thresholds stand below, and
`tests/evaluation/test_diagnosis.py` builds a model that has the fault and models that have none.
"""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from vaekit.config.config import Config
from vaekit.runs.metrics import still_falling


@dataclass(frozen=True)
class Finding:
    """One fault: `name`, what was measured, and the command line that mends it."""

    name: str
    sentence: str
    remedy: str


@dataclass(frozen=True)
class DiagnosisInput:
    """What the checks look at."""

    config: Config
    evaluation: Mapping[str, Any]
    """The content of evaluation.json."""
    history: Sequence[Mapping[str, float]]
    """The rows of metrics.csv, from where the objective's schedules had come to their ends."""
    loss_drop: float
    """What the validation loss fell by, at its best, since the first epoch: always at the final schedules."""
    steps: int
    """Of training, in all."""
    training_images: int
    run: str
    """The run's folder, for commands."""
    retrain_command: Callable[..., str]
    """The command that trains it anew with the first of some changes of its settings that is possible and is one."""
    resume_command: Callable[[int], str]
    """The command that trains it on, to so many epochs."""

    @property
    def collapsed(self) -> bool:
        """Hardly any latent depends on the image."""
        active = self.evaluation["active_units"]
        return active is not None and bool(active < max(1, COLLAPSED_SHARE * self.evaluation["latents"]))

    @property
    def error_ratio(self) -> float:
        """The mean squared error of held-out reconstructions as a multiple of that of training images."""
        learned = self.evaluation["learned"]
        return self.evaluation["reconstructions"]["mse"] / max(learned["mse"], 1e-9) if learned else 1.0

    @property
    def memorized(self) -> bool:
        """Training images come back much better than held-out ones, by what can be seen."""
        held_out, training = self.evaluation["reconstructions"]["explained"], self.evaluation["learned"]
        if not training or held_out is None or training["explained"] is None or not self.evaluation["own"]:
            return False  # images from elsewhere may come back worse for what they show
        return bool(self.error_ratio > MEMORIZED_ERROR_RATIO and training["explained"] - held_out > MEMORIZED_VARIANCE)

    @property
    def falling(self) -> bool:
        """Whether the validation loss still fell at a good rate when training ended."""
        constant = self.config.training.schedule == "constant"
        return constant and still_falling([row["val_loss"] for row in self.history], self.loss_drop)

    @property
    def undertrained(self) -> bool:
        """Training has only begun: what it has not learned yet is no fault of the model."""
        return self.falling and self.steps < MIN_STEPS

    @property
    def loss_rise(self) -> float:
        """What the training loss rose by on its way, in nats; 0 where that is little."""
        losses = [row["train_loss"] for row in self.history]
        lowest = list(accumulate(losses, min))
        rise = max((loss - before for loss, before in zip(losses, lowest, strict=True)), default=0.0)
        if len(losses) < 3 or rise <= max(ROUGH_NATS, ROUGH_SHARE * max(self.loss_drop, losses[0] - lowest[-1])):
            return 0.0
        return rise


COLLAPSED_SHARE = 0.05
"""Share of active latents below which the posterior has collapsed."""


UNUSED_SHARE = 0.5
"""Share of active latents below which there are more than are of use."""


MAX_FEW_LATENTS = 8
"""Latents that are never called too many."""


MIN_STEPS = 1000
"""Steps below which a model whose loss still falls has only begun to learn."""


ROUGH_SHARE = 0.1
"""Rise of the training loss, as a share of all that the validation loss fell by, that is rough."""


ROUGH_NATS = 2.0
"""The least rise of the training loss that counts, in nats."""


MEMORIZED_ERROR_RATIO = 1.5
"""Held-out error over training error."""


MEMORIZED_VARIANCE = 0.02
"""Of the pixels' variance, what training images' reconstructions have beyond those of held-out images."""


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


def diagnose(inputs: DiagnosisInput) -> list[dict[str, str]]:
    """All faults found, the gravest first."""
    findings = [check(inputs) for check in CHECKS]
    return [asdict(finding) for finding in findings if finding is not None]


def duplicates(m: DiagnosisInput) -> Finding | None:
    memorization = m.evaluation["memorisation"]
    if not memorization or memorization["duplicates"] <= MAX_DUPLICATES:
        return None
    text = (
        f"{memorization['duplicates']:.0%} of the held-out images stand among the training images too, so that "
        "figures of theirs flatter the model: take the copies out (evaluation.json names their files)"
    )
    if m.evaluation["own"] and memorization["duplicate_files"][0][0].split("/")[0].lower() not in HELD_OUT_FOLDERS:
        last = {"validation": f"last:{max(1, m.training_images // 9)}"}
        advice = ", or, where images follow one another like those of a film, hold out the last of them."
        return Finding("duplicates across the split", text + advice, m.retrain_command(last))
    data = m.evaluation["data"] if Path(m.evaluation["data"]).exists() else "DATA"
    evaluate_command = f"vaekit evaluate {shlex.quote(m.run)} --data {shlex.quote(data)}"
    remedy = m.retrain_command({}) if m.evaluation["own"] else evaluate_command
    return Finding("duplicates across the split", f"{text}, then:", remedy)


def rough_training(m: DiagnosisInput) -> Finding | None:
    if not m.loss_rise:
        return None
    return Finding(
        "learning rate too high",
        f"The training loss rose by {m.loss_rise:,.0f} nats on the way, where it should fall: the steps are too large.",
        m.retrain_command({"learning_rate": float(f"{m.config.training.learning_rate / 5:.1g}")}),
    )


def collapse(m: DiagnosisInput) -> Finding | None:
    if not m.collapsed or m.undertrained:
        return None
    objective = m.config.objective
    kl = m.evaluation.get("kl")
    kl_text = "" if kl is None else f"; the KL is {kl:.2f} nats"
    beta = getattr(objective, "beta", 1.0)
    warmup, free_bits = getattr(objective, "warmup", 0.0), getattr(objective, "free_bits", 0.0)
    changes: tuple[dict[str, Any], ...] = (
        {"objective": {"kind": "elbo", "warmup": max(warmup, min(10.0, m.config.training.epochs // 2))}},
        {"objective": {"kind": "elbo", "free_bits": 2 * free_bits or 0.1}},
        {"objective": {"kind": "elbo", "warmup": 2 * warmup}},
    )
    if m.config.posterior.kind == "delta":
        changes = (VAE, {"prior": {"kind": "normal"}, **VAE})
    elif beta > 1:
        changes = ({"objective": {"beta": 1.0}}, *changes)
    return Finding(
        "posterior collapse",
        f"{m.evaluation['active_units']} of {m.evaluation['latents']} latents depend on the image{kl_text}: "
        f"the decoder has learned to do without them{f', pressed by beta = {beta:g}' if beta > 1 else ''}.",
        m.retrain_command(*changes),
    )


def noise_level(m: DiagnosisInput) -> Finding | None:
    likelihood = m.config.likelihood
    if getattr(likelihood, "sigma", None) != "fixed":
        return None
    scale, error = float(likelihood.scale), math.sqrt(m.evaluation["reconstructions"]["mse"])  # type: ignore[union-attr]
    if scale <= NOISE_RATIO * error:
        return None
    return Finding(
        "noise level too high",
        f"The likelihood takes the noise of a pixel to be {scale:.3g}, where reconstructions are {error:.3g} off: what "
        "is finer than its noise it need not learn.",
        m.retrain_command({"likelihood": {"sigma": "learned"}}),
    )


def too_few_epochs(m: DiagnosisInput) -> Finding | None:
    if not m.falling or m.loss_rise or (m.collapsed and not m.undertrained):
        return None
    epochs, requested = max(1, round(m.history[-1]["epoch"])), m.config.training.epochs
    only = f" and {m.steps:,} steps, where {MIN_STEPS:,} are few" if m.undertrained else ""
    return Finding(
        "too few epochs",
        f"The validation loss still fell at the end, after {epochs} epoch{'s' * (epochs > 1)}{only}.",
        m.resume_command(max(2 * requested, math.ceil(requested * MIN_STEPS / max(1, m.steps)))),
    )


def little_data(m: DiagnosisInput) -> Finding | None:
    if not m.memorized or m.training_images >= FEW_IMAGES:
        return None
    return Finding(
        "too little data",
        f"Reconstructions of held-out images are {m.error_ratio:.1f} times as far off as those of training images: "
        f"{m.training_images:,} images are few to learn from. More help most; mirrored and shifted ones are some.",
        m.retrain_command(*_more_varied_images(m.config)),
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
        "overfitting",
        f"{text}: the model learns its training images by heart. The weights kept are those of the best epoch; varied "
        "images and an early stop spare the rest.",
        m.retrain_command(*_more_varied_images(m.config, patience=m.config.training.patience or 10)),
    )


def underfitting(m: DiagnosisInput) -> Finding | None:
    learned = m.evaluation["learned"]
    if not learned or learned["explained"] is None or learned["explained"] >= MIN_EXPLAINED:
        return None
    if m.collapsed or m.falling or m.memorized:
        return None  # a fault of its own, which explains this one
    return Finding(
        "underfitting",
        f"Reconstructions have {max(0.0, learned['explained']):.0%} of the variance even of training images: the model "
        f"is too small for them, with {m.evaluation['latents']} latents, or held back.",
        m.retrain_command(
            *[{"objective": {"beta": 1.0}}] * (getattr(m.config.objective, "beta", 1.0) > 1),
            _larger_model(m.config),
            {"epochs": 2 * m.config.training.epochs},
        ),
    )


def prior_mismatch(m: DiagnosisInput) -> Finding | None:
    aggregate = m.evaluation["aggregate"]
    kl = m.evaluation.get("kl")
    if not aggregate or m.falling or aggregate["gain"] <= max(MISMATCH_NATS, MISMATCH_SHARE * (kl or 0)):
        return None
    information = aggregate["mutual_information_at_most"]
    given = ", given its class" if m.config.conditional else ""
    most = None if information is None else f"{max(0.0, information):.1f} nats of an image{given}"
    limit = "" if most is None else f"; beside it the latents carry at most {most}"
    return Finding(
        "prior mismatch",
        f"Its own prior is {aggregate['gain']:.1f} nats per image from what the encoder does{limit}. New images "
        "are drawn from a fitted prior, so they do not suffer; what follows would take the nats off the loss too.",
        m.retrain_command(*_better_prior(m.config)),
    )


def unused_latents(m: DiagnosisInput) -> Finding | None:
    active, latents = m.evaluation["active_units"], m.evaluation["latents"]
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
        "unused latents",
        f"{active} of {latents} latents depend on the image: fewer would do as well, and make the latent space easier "
        "to explore.",
        m.retrain_command({"latents": max(2, math.ceil(1.25 * active))}),
    )


VAE: dict[str, Any] = {"posterior": {"kind": "gaussian"}, "objective": {"kind": "elbo"}}
"""What makes a variational autoencoder of an autoencoder."""


def _more_varied_images(config: Config, **others: Any) -> tuple[dict[str, Any], ...]:
    """Images that differ more from one epoch to the next."""
    crop = config.data.crop
    return {"flip": True, "crop": max(2, crop), **others}, {"crop": min(64, 2 * crop)}, {"jitter": 0.2}


def _better_prior(config: Config) -> tuple[dict[str, Any], ...]:
    """A prior nearer to what the encoder does, or an encoder nearer to its prior."""
    objective: Any = config.objective
    if objective.kind == "mmd":
        return {"objective": {"weight": 10 * objective.weight}}, VAE
    if config.posterior.kind == "delta":
        return (VAE,)
    changes: list[dict[str, Any]] = [{"objective": {"beta": 1.0}}] * (getattr(objective, "beta", 1.0) < 1)
    for kind in ("flow", "vamp", "mixture"):
        changes += [
            {"prior": {"kind": kind}},
            {"prior": {"kind": kind}, "objective": {"kind": "elbo", "free_bits": 0.0}},
        ]
    return *changes, VAE


def _larger_model(config: Config) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if str(config.latents).isdecimal():
        changes["latents"] = max(16, 4 * int(config.latents))
    for slot in ("encoder", "decoder"):
        network = getattr(config, slot)
        if hasattr(network, "channels"):
            changes[slot] = {"channels": 2 * network.channels}
        elif getattr(network, "hidden", None):
            changes[slot] = {"hidden": tuple(max(400, 2 * width) for width in network.hidden)}
    return changes


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
