"""The input of an evaluation."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaekit.errors import UserError
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import class_numbers, held_out_images, is_training_pack, training_pack
from vaekit.runs.loaded import LoadedModel

DEFAULT_NEW_IMAGES = 1000
"""New images that are compared with as many held-out ones, by default."""
QUICK_IMAGES = 500
"""Held-out images whose likelihood is estimated for a report, at most."""
MIN_NEW_IMAGES = 50
"""With fewer per set, sets of images are not compared."""
FEATURE_WORK = 50
"""Decoded draws of z that take about the time of the features of one image."""
Advance = Callable[[int, str], None]
"""Called with the work done, in decoded draws of z, and the name of the current part."""


@dataclass(frozen=True, eq=False)
class EvalContext:
    """A model, and the images to evaluate it on."""

    model: LoadedModel
    held_out: ImageSet
    training: ImageSet | None
    """None where the training images are not at hand."""
    split: str
    same_dataset: bool
    """Whether the held-out images are of the data set that the model was trained on."""
    seed: int
    max_new_images: int = DEFAULT_NEW_IMAGES
    quick: bool = False
    """Whether what takes long is left out or measured on fewer images."""

    @property
    def new_images(self) -> int:
        """How many are drawn: half of the held-out images are compared with them, half with each other, but
        for a quick evaluation."""
        comparable = self.max_new_images if self.quick else max(1, len(self.held_out) // 2)
        return min(self.max_new_images, comparable)


def open_context(
    model: LoadedModel, data: Any, seed: int, quiet: bool, max_new_images: int = DEFAULT_NEW_IMAGES
) -> EvalContext:
    """The held-out images of a data set, by default the model's own; and the training images if at hand."""
    held_out, split = held_out_images(model, data, quiet)
    same_dataset = is_training_pack(model, held_out.pack)
    training = None
    with suppress(UserError):
        pack = held_out.pack if same_dataset else training_pack(model, quiet)
        rows = pack.splits["train"]
        training = ImageSet(pack, np.arange(rows.start, rows.stop), class_numbers(model, pack))
    return EvalContext(model, held_out, training, split, same_dataset, seed, max_new_images)
