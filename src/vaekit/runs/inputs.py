"""Inputs of a trained model: labels, and data sets in the form it was trained on."""

import operator
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vaekit.data.packs.load_images import load_images
from vaekit.data.packs.pack import BUNDLED, Pack, channel_text, open_pack
from vaekit.data.packs.reading import Reading
from vaekit.data.sources.layout import NO_CLASS, read_layout
from vaekit.data.sources.table_files import find_table
from vaekit.data.sources.tables import labels_of_files, match_table
from vaekit.errors import UserError, setting
from vaekit.models.terms import Labels as LabelTensor
from vaekit.runs.conditions import pack_conditions
from vaekit.runs.image_set import ImageSet
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import read_dataset_summary, read_metadata
from vaekit.utils.files import natural_sort_key, printable
from vaekit.utils.logging import log

Labels = str | int | Mapping[str, Any] | Sequence[str | int | Mapping[str, Any]] | NDArray[Any]
"""The class of all images, or one for each, by name or index; or their conditions."""
Images = UInt8[np.ndarray, "N H W C"]
Latents = Float[np.ndarray, "N D"] | Float[np.ndarray, "N c h w"]
"""A vector per image, or a spatial latent if the model was trained with `latents="4x7x7"` or the like."""
OF_TRAINING = dict.fromkeys(("include", "exclude", "labels", "label_column", "condition", "group"))
"""Settings of the data that mean files of the training data, and none of others."""
MAX_COUNT = 10_000_000
MAX_LISTED_CLASSES = 20
"""Classes that a message lists, at most."""


def class_indices(labels: Labels, n: int, classes: Sequence[str]) -> Int64[Tensor, " n"]:
    """Class indices of `n` images, from one label for all or one for each."""
    if isinstance(labels, (str, int, float, np.integer, np.floating, Mapping)):
        values: list[Any] = [labels] * n
    else:
        values = np.asarray(labels).tolist()
    if len(values) != n:
        hint = "Give one label, or one for each image."
        raise UserError(f"{len(values)} labels were given for {n} images.", hint)
    return torch.tensor([class_index(label, classes) for label in values], dtype=torch.long)


def class_index(label: Any, classes: Sequence[str]) -> int:
    """The index of a class given by name or index.

    Of classes that are named by numbers, a number is the name: 1 is the class "1", not the second one.
    """
    if isinstance(label, str):
        shown = [printable(name) for name in classes]
        if label in classes or label in shown:
            return classes.index(label) if label in classes else shown.index(label)
    elif isinstance(label, (int, float, np.integer, np.floating)) and label == int(label):
        number = int(label)
        if _are_numbers(classes):
            if str(number) in classes:
                return classes.index(str(number))
        elif 0 <= number < len(classes):
            return number
    if not classes:
        raise UserError("This model has no classes.")
    raise UserError(f"Unknown class {label!r}.", f"Available: {format_names(classes)}.")


def _are_numbers(classes: Sequence[str]) -> bool:
    """Whether all classes are named by numbers, but for the images outside the class folders."""
    return all(re.fullmatch("-?[0-9]+", name) for name in classes if name != NO_CLASS)


def format_names(names: Sequence[str]) -> str:
    """Join names for a message, which lists only the first ones."""
    return ", ".join(names[:MAX_LISTED_CLASSES]) + (", ..." if len(names) > MAX_LISTED_CLASSES else "")


def check_count(number: SupportsIndex, option: str = "samples", minimum: int = 1) -> int:
    """Check that `number` is an integer from `minimum` to MAX_COUNT; return it as an int."""
    try:
        count = operator.index(number)
    except TypeError:
        count = minimum - 1
    if not minimum <= count <= MAX_COUNT:
        text = f"must be a whole number from {minimum} to {MAX_COUNT:,} (got {number})."
        raise UserError(text, option=option)
    return count


def training_pack(model: LoadedModel, quiet: bool, alternative: str = "") -> Pack:
    """Open the pack that a model was trained on; UserError if the images have moved or changed.

    `alternative` says what else the user can do, such as "give a folder of images".
    """
    source = read_metadata(model.run).source
    if source is None and model.arrays is None and read_dataset_summary(model.run).source != BUNDLED:
        hint = f"{alternative[:1].upper()}{alternative[1:]}." if alternative else ""
        why = "they were given in memory or the model was published without them"
        raise UserError(f"The training images are not in the run: {why}.", hint)
    given = model.arrays if source is None else source
    pack = open_pack(given, model.config.data, quiet, run=model.run.folder)
    if not is_training_pack(model, pack):
        hint = f"Restore them, or {alternative}." if alternative else "Restore them."
        message = "The training images have changed since training"
        if not read_dataset_summary(model.run).contents:
            message += ", or are split and ordered in another way than by version 0.1.0, which read them"
        raise UserError(f"{message}.", hint)
    return pack


def is_training_pack(model: LoadedModel, pack: Pack) -> bool:
    """Whether a pack has the images, labels and splits that a model was trained on."""
    return pack.fingerprint == read_dataset_summary(model.run).fingerprint


def held_out_images(model: LoadedModel, data: Any, quiet: bool) -> tuple[ImageSet, str]:
    """The images to evaluate a model on, and the name of their split.

    This is the test split; without one, the validation split of the training data, or "all" of other data.
    """
    if data is None or _is_source(model, data):
        pack = training_pack(model, quiet, f"give other images with {setting('data')}")
    else:
        pack = _other_pack(model, data, quiet)
        pack = _training_pack_elsewhere(model, data, quiet, pack) or pack
    _require_shape(model, pack)
    split = "test" if pack.count("test") else "validation" if is_training_pack(model, pack) else "all"
    rows = pack.splits.get(split, slice(0, len(pack.images)))
    return ImageSet(pack, np.arange(rows.start, rows.stop), class_numbers(model, pack)), split


def all_images(model: LoadedModel, data: Any, quiet: bool) -> tuple[ImageSet, list[str]]:
    """All images of a data set, by default the training data, and their paths.

    They are in the natural order of their paths (2.png before 10.png). Logs which files were skipped.
    """
    if data is None:
        pack = training_pack(model, quiet, "give a folder of images")
    else:
        # The training data have a pack already, unless they have changed in shape
        known = None
        if _is_source(model, data):
            known = open_pack(data, model.config.data, quiet, run=model.run.folder)
        pack = known if known is not None and known.shape == model.shape else _other_pack(model, data, quiet)
    _require_shape(model, pack)
    if pack.skipped:
        path, reason = pack.skipped[0]
        files = "1 file:" if len(pack.skipped) == 1 else f"{len(pack.skipped):,} files, e.g."
        log.info(f"Skipped {files} {path} ({reason})")
    paths = [printable(path) for path in pack.paths()]
    order = sorted(range(len(paths)), key=lambda row: natural_sort_key(paths[row]))
    images = ImageSet(pack, np.array(order, np.int64), class_numbers(model, pack))
    return images, [paths[row] for row in order]


def class_numbers(model: LoadedModel, pack: Pack) -> LabelTensor | None:
    """The model's class index of every image of a pack, matched by name, or its conditions; None for an
    unconditional model."""
    if model.columns:
        return pack_conditions(model, pack)
    if not model.vae.classes:
        return None
    if not pack.classes:
        hint = f"Put each of its classes ({format_names(model.classes)}) in a folder of its own."
        raise UserError(f"The images of {pack.source} have no classes, and this model is conditional.", hint)
    indices = torch.tensor([class_index(name, model.classes) for name in pack.classes])
    return indices[torch.from_numpy(np.asarray(pack.labels))]


def _is_source(model: LoadedModel, data: Any) -> bool:
    is_path = isinstance(data, (str, Path))
    return is_path and str(Path(data).expanduser().resolve()) == read_metadata(model.run).source


def _training_pack_elsewhere(model: LoadedModel, data: Any, quiet: bool, pack: Pack) -> Pack | None:
    """The training data in another place, with their splits; None if these are other images."""
    recorded = read_dataset_summary(model.run).contents
    if recorded and recorded != pack.metadata["contents"]:
        return None
    try:
        split = _other_pack(model, data, quiet, splitting=True)
    except UserError:  # these are too few to be split
        return None
    return split if is_training_pack(model, split) else None


def _other_pack(model: LoadedModel, data: Any, quiet: bool, splitting: bool = False) -> Pack:
    """Open the pack of other images, resized to the model's size."""
    _, height, width = model.shape
    size = {"size": f"{width}x{height}"}
    settings = model.config.data.model_copy(update=size if splitting else size | OF_TRAINING)
    known, reading = model.vae.classes and model.classes, model_reading(model)
    return open_pack(
        data,
        settings,
        quiet,
        known_classes=known or (),
        reading=reading,
        splitting=splitting,
        run=model.run.folder,
    )


def model_reading(model: LoadedModel) -> Reading:
    """How the values of the images that a model was trained on were read."""
    recorded = read_dataset_summary(model.run).reading
    return Reading(
        limits=recorded.get("limits"),
        level_limits=recorded.get("level_limits"),
        background=recorded.get("background", model.config.data.background),
    )


def read_files(model: LoadedModel, paths: Sequence[str | Path]) -> Images:
    """Read image files to uint8 [N, H, W, C], like the training images of a model."""
    return load_images(paths, model.config.data, model.shape, model_reading(model))


def read_file_bytes(model: LoadedModel, name: str, contents: bytes) -> Images:
    """Read the image of a file that is in memory to uint8 [1, H, W, C]; `name` is for messages."""
    reading = model_reading(model)
    return load_images([name], model.config.data, model.shape, reading, lambda _: BytesIO(contents))


def class_of_file(model: LoadedModel, path: str | Path) -> str:
    """The class of an image file, from its path as it is given: as in training for a file of the training
    data, by a table too, else the innermost of its folders that is named after a class, or its folder."""
    given = Path.cwd() / Path(path).expanduser()  # as it is given: links keep their place
    source = read_metadata(model.run).source
    if source is not None and given.is_relative_to(source):
        relative = given.relative_to(source).as_posix()
        settings = model.config.data
        if settings.labels:
            table = match_table(find_table(settings.labels, Path(source)), [relative])
            return labels_of_files(table, settings.label_column)[0][0]
        layout = read_layout([relative], settings.split_folders, keep_masks=True, known_classes=model.classes)
        if layout.classes[0] in model.classes:
            return layout.classes[0]
    names = [folder.name for folder in given.parents]
    return next((name for name in names if name in model.classes), names[0])


def _require_shape(model: LoadedModel, pack: Pack) -> None:
    if pack.shape != model.shape:
        expected, given = channel_text(model.shape[0]), pack.channel_text
        raise UserError(f"This model takes {expected} images, but those of {pack.source} are {given}.")
