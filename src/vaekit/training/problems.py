"""What is wrong with a finished training, from its metrics alone: said at its end, with what to do."""

import math
from collections.abc import Sequence

from vaekit.config.config import Config
from vaekit.errors import setting
from vaekit.evaluation.diagnosis import COLLAPSED_NATS
from vaekit.runs.metrics import Row

RISE = 0.25
"""Rise of the validation loss from its best value, as a share of that, by which a training has diverged."""
FEW_IMAGES = 5
"""Validation images below which the choice of the best epoch is mostly chance."""


def problems(rows: Sequence[Row], config: Config, validation_images: int) -> list[str]:
    """Sentences on a diverged loss, a collapsed posterior, and a validation loss that means little.

    Args:
        rows: the metrics of the epochs.
        config: what was trained.
        validation_images: how many there are.
    """
    if not rows:
        return []
    texts = []
    best = min(rows, key=lambda row: row["val_loss"])
    last = rows[-1]
    if last["val_loss"] - best["val_loss"] > RISE * max(1.0, abs(best["val_loss"])):
        rate = setting("learning_rate", f"{config.training.learning_rate / 10:.1g}")
        texts.append(
            f"The validation loss rose from {best['val_loss']:,.2f} in epoch {best['epoch']:,.0f} to "
            f"{last['val_loss']:,.2f} at the end: training diverged. The weights of epoch "
            f"{best['epoch']:,.0f} are kept. Start a new run with a lower learning rate, such as {rate}."
        )
    kl = best.get("val_kl", math.nan)
    if config.posterior.kind != "delta" and abs(kl) < COLLAPSED_NATS:
        beta = getattr(config.objective, "beta", None)
        advice = "Train longer, or start a new run with a lower learning rate"
        if beta is not None and beta > 1:
            advice = f"Start a new run with {setting('objective.beta', 1)} instead of {beta:g}"
        texts.append(
            f"The posterior has collapsed: the KL divergence is {kl:.2f} nats, so that latents have no "
            f"effect and all new images are alike. {advice}."
        )
    if validation_images < FEW_IMAGES:
        images = "1 image" if validation_images == 1 else f"{validation_images} images"
        texts.append(
            f"The validation loss is that of {images}, so which epoch is the best is mostly chance. Add "
            f"images, or hold out more with {setting('validation', 0.3)}."
        )
    return texts
