"""Conditions of images for a trained model: those of its training data, and those that a user gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.data.packs.pack import Pack
from vaekit.data.sources.columns import average_vector
from vaekit.data.sources.conditions import captions, vector_of, vectors_of_files
from vaekit.data.sources.table_files import find_table
from vaekit.data.sources.tables import match_table
from vaekit.errors import UserError, setting
from vaekit.models.terms import Labels
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import read_metadata
from vaekit.utils.logging import log


def label_names(images: Pack | LoadedModel, y: Labels | None) -> list[str] | None:
    """The classes of images with labels `y`, or texts of their conditions, to write under them; None if there
    are none, or too many for a text."""
    if y is None:
        return None
    if y.is_floating_point():
        return captions(images.columns, y.cpu().numpy())
    return [images.classes[i] if i >= 0 else "" for i in y.tolist()] if images.classes else None


def chosen_label(model: LoadedModel, label: Any, condition: Any) -> Any:
    """The class or the conditions that new images are to have; UserError if the model does not have it."""
    if condition is not None and not model.columns:
        hint = f"Train one with {setting('labels')} and {setting('condition')}."
        raise UserError("This model has no conditions.", hint)
    if label is not None and model.columns:
        hint = f"Use {setting('condition')}: {_listed(model)}."
        raise UserError("This model has conditions instead of classes.", hint, "label")
    return label if condition is None else condition


def condition_vectors(model: LoadedModel, given: Any, n: int) -> Float[Tensor, "n K"]:
    """The vectors of `n` images on the device, from conditions for all, or from one for each.

    Args:
        given: as `Condition`, or a sequence of them, or vectors [K] or [n, K].

    Raises:
        UserError: nothing is given, or unknown columns or values, or not as many as images.
    """
    if given is None:
        hint = f"Give them with {setting('condition')}: {_listed(model)}."
        raise UserError("This model needs the conditions of every image.", hint)
    if isinstance(given, (str, Mapping)):
        given = vector_of(model.columns, given)
    elif not isinstance(given, (np.ndarray, Tensor)):
        given = np.stack([vector_of(model.columns, one) for one in given])
    vectors = torch.as_tensor(given, dtype=torch.float32, device=model.device)
    vectors = vectors.expand(n, -1) if vectors.ndim == 1 else vectors
    if vectors.shape != (n, model.vae.classes):
        hint = "Give them once, or for each image."
        raise UserError(f"There are {len(vectors)} conditions for {n} images.", hint)
    return vectors


def average_condition(model: LoadedModel) -> Float[Tensor, " K"]:
    """The mean of the conditions of the training images, on the device."""
    return torch.from_numpy(average_vector(model.columns)).to(model.device)


def pack_conditions(model: LoadedModel, pack: Pack) -> Float[Tensor, "N K"]:
    """The conditions of all images of a pack: their own if they have the same columns, else the average."""
    if pack.conditions is not None and pack.columns == model.columns:
        return torch.from_numpy(np.array(pack.conditions))
    log.info(f"The conditions of {pack.source} are unknown: using the average of the training images.")
    return average_condition(model).cpu().expand(len(pack.images), -1)


def file_conditions(model: LoadedModel, paths: Sequence[str | Path]) -> Float[np.ndarray, "n K"]:
    """The conditions of image files of the training folder, from its table.

    Raises:
        UserError: a file is not in that folder, or the table has moved or changed.
    """
    source, settings = read_metadata(model.run).source, model.config.data
    given = [Path.cwd() / Path(path).expanduser() for path in paths]
    outside = [path for path in given if source is None or not path.is_relative_to(source)]
    if source is None or settings.labels is None or outside:
        message = f"The table of the training images has no conditions of '{(outside or given)[0]}'"
        raise UserError(f"{message}.", f"Give them with {setting('condition')}: {_listed(model)}.")
    relative = [path.relative_to(source).as_posix() for path in given]
    return vectors_of_files(match_table(find_table(settings.labels, Path(source)), relative), model.columns)


def _listed(model: LoadedModel) -> str:
    return ", ".join(column.description for column in model.columns)
