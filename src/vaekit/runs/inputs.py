"""What a caller gives a trained model: arrays, classes by name, and data sets, made into what it was trained on."""

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vaekit.data.packs.pack import BUNDLED, Pack, open_pack
from vaekit.errors import UserError
from vaekit.runs.image_set import NamedImages
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import read_dataset_summary, read_metadata
from vaekit.utils.files import natural_sort_key, printable
from vaekit.utils.logging import log

Labels = str | int | Sequence[str | int] | NDArray[Any]
"""The class of all images, or one for each, by name or number."""


Images = UInt8[np.ndarray, "N H W C"]


Latents = Float[np.ndarray, "N D"] | Float[np.ndarray, "N c h w"]
"""One vector an image, or a latent image where the model was trained with `latents="4x7x7"` or the like."""


def class_indices(labels: Labels, n: int, classes: Sequence[str]) -> Int64[Tensor, " n"]:
    """Class numbers of `n` images.

    Raises:
        UserError: a class that is not among `classes`, or another number of labels.
    """
    many = [labels] * n if isinstance(labels, (str, int, np.integer)) else np.asarray(labels).tolist()
    if len(many) != n:
        raise UserError(f"{len(many)} labels for {n} images: give one label, or one for each image.")
    return torch.tensor([class_index(one, classes) for one in many], dtype=torch.long)


def class_index(name: str | int, classes: Sequence[str]) -> int:
    """The number of a class by its name, or by its number.

    Raises:
        UserError: there is no such class.
    """
    if isinstance(name, str) and name in classes:
        return classes.index(name)
    if isinstance(name, (int, np.integer)) and 0 <= name < len(classes):
        return int(name)
    raise UserError(
        f"There is no class {name!r} in this model: it knows {format_names(classes)}; name one of them (--class NAME)."
    )


def common_folder(one: Path, other: Path) -> str:
    """The class that two image files are of by their folder's name.

    Raises:
        UserError: they are of two.
    """
    first, second = (path.expanduser().resolve().parent.name for path in (one, other))
    if first != second:
        raise UserError(
            f"{one} is of class {first!r} and {other} of {second!r}: name the one class that all images are to be "
            "drawn with (--class NAME)."
        )
    return first


def format_names(classes: Sequence[str]) -> str:
    """The first names of many, for a sentence."""
    return ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")


def check_count(number: SupportsIndex, what: str = "samples", least: int = 1) -> int:
    """A number of things.

    Raises:
        UserError: it is none, or too few.
    """
    try:
        count = operator.index(number)
    except TypeError:
        count = least - 1
    if not least <= count <= 10_000_000:
        raise UserError(f"{number} {what} are not possible: ask for a whole number from {least} to 10,000,000.")
    return count


def training_pack(model: LoadedModel, quiet: bool, otherwise: str = "") -> Pack:
    """The pack that a model was trained on.

    Raises:
        UserError: the images are not there as they were; `otherwise` is what to do but to bring them back.
    """
    source = read_metadata(model.run).source
    gone = f"bring them back{otherwise and f', or {otherwise}'}."
    if source is None and model.arrays is None and read_dataset_summary(model.run).source != BUNDLED:
        raise UserError(f"The training images came from Python and are not kept: {gone}")
    pack = open_pack(model.arrays if source is None else source, model.config.data, quiet)
    if not is_training_pack(model, pack):
        raise UserError(f"The training images are not there as they were: {gone}")
    return pack


def is_training_pack(model: LoadedModel, pack: Pack) -> bool:
    """Whether a pack holds the very images, labels and sides that a model was trained on."""
    return pack.fingerprint == read_dataset_summary(model.run).fingerprint


def held_out_rows(model: LoadedModel, data: Any, quiet: bool) -> tuple[Pack, str, NDArray[np.int64]]:
    """The pack to judge a model on, the name of the side in it, and its rows: the test side, or else the validation
    side of the model's own images, wherever these lie now, or all of others."""
    own = data is None or _is_source(model, data)
    pack = (
        training_pack(model, quiet, "name other images to judge by with --data")
        if own
        else _other_pack(model, data, quiet)
    )
    _require_shape(model, pack)
    split = (
        "test"
        if pack.splits["test"].stop > pack.splits["test"].start
        else "validation"
        if is_training_pack(model, pack)
        else "all"
    )
    rows = pack.splits.get(split, slice(0, len(pack.images)))
    return pack, split, np.arange(rows.start, rows.stop)


def all_images(model: LoadedModel, data: Any, quiet: bool) -> NamedImages:
    """All images of a data set, of that which the model was trained on where it is None. Says what is left out."""
    if data is None:
        pack = training_pack(model, quiet, "name a folder of images")
    else:
        # Its own images were packed in training: the same pack does, where it still has images of this shape.
        known = open_pack(data, model.config.data, quiet) if _is_source(model, data) else None
        pack = known if known is not None and known.shape == model.shape else _other_pack(model, data, quiet)
    _require_shape(model, pack)
    if pack.skipped:
        path, reason = pack.skipped[0]
        also = f" and {len(pack.skipped) - 1:,} more" if len(pack.skipped) > 1 else ""
        log.info(f"Left out: {path} ({reason}){also}")
    paths = [printable(path) for path in pack.paths()]
    order = sorted(range(len(paths)), key=lambda row: natural_sort_key(paths[row]))
    labels = [printable(pack.classes[pack.labels[row]]) for row in order] if pack.classes else None
    return NamedImages(pack, [paths[row] for row in order], labels, np.array(order, np.int64))


def _is_source(model: LoadedModel, data: Any) -> bool:
    return isinstance(data, (str, Path)) and str(Path(data).expanduser().resolve()) == read_metadata(model.run).source


def _other_pack(model: LoadedModel, data: Any, quiet: bool) -> Pack:
    """The pack of images that may be others than the model's own, fitted to its size."""
    _, height, width = model.shape
    settings = model.config.data.model_copy(update={"size": f"{width}x{height}"})
    try:
        return open_pack(data, settings, quiet)
    except UserError:
        if not settings.validation.startswith("last:"):
            raise
    return open_pack(data, settings.model_copy(update={"validation": "0.1"}), quiet)  # they may be too few for that


def _require_shape(model: LoadedModel, pack: Pack) -> None:
    if pack.shape != model.shape:
        raise UserError(
            f"This model takes images with {model.shape[0]} colour channels, those of {pack.source} have "
            f"{pack.shape[0]}: name other images."
        )


def class_numbers(model: LoadedModel, pack: Pack) -> Int64[Tensor, " N"] | None:
    """For every image of a pack the number that its class has in a conditional model, matched by name; None for other
    models.

    Raises:
        UserError: the images have no classes, or one that the model does not know.
    """
    if not model.vae.classes:
        return None
    if not pack.classes:
        raise UserError(
            f"The images of {pack.source} have no classes, and this model is conditional: put each of its "
            f"classes ({format_names(model.classes)}) in a folder of its own."
        )
    if missing := set(pack.classes) - set(model.classes):
        raise UserError(f"This model knows no class {min(missing)!r}: it knows {format_names(model.classes)}.")
    numbers = torch.tensor([model.classes.index(name) for name in pack.classes])
    return numbers[torch.from_numpy(np.asarray(pack.labels))]
