"""From what a user gives to a source of images: a folder, an archive, arrays, or the bundled sample."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.config.data import DataConfig
from vaekit.data.decoding.archives import OTHER_ARCHIVES, is_archive
from vaekit.data.sources.arrays import ArraySource, array_source, idx_source, numpy_source
from vaekit.data.sources.files import FilesSource, archive_source, folder_source
from vaekit.data.sources.pixels import is_tensor
from vaekit.errors import UserError

Source = FilesSource | ArraySource
GIVE = "Give a folder of images, an archive of one (.zip or .tar), or a .npz or .npy file."


def find_source(source: Any, settings: DataConfig, known_classes: Sequence[str] = ()) -> Source:
    """Open a path, an array, a tuple (images, labels), or None for the bundled sample as a source.

    Args:
        source: what the user gave.
        settings: which files of a folder are read, and what their paths mean.
        known_classes: the classes of a trained model, to find again in other images.
    """
    if source is None:
        return _bundled_sample()
    if isinstance(source, (np.ndarray, list, tuple)) or is_tensor(source):
        return array_source(source)
    if not isinstance(source, (str, os.PathLike)):
        hint = "Give a folder, an archive, a .npz or .npy file, an array or a torch Dataset."
        if hasattr(source, "to_numpy"):  # a table of pandas or Polars
            hint = "If its rows are pixels, give frame.to_numpy().reshape(-1, height, width)."
        raise UserError(f"An object of type {type(source).__name__} is not a source of images.", hint)
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"'{source}' does not exist.", GIVE)
    try:
        if path.is_dir():
            return idx_source(path) or folder_source(path, settings, known_classes)
        if is_archive(path):
            return archive_source(path, settings, known_classes)
        if path.suffix.lower() in (".npz", ".npy") and path.is_file():
            return numpy_source(path)
    except PermissionError:
        raise UserError(f"'{path}' is not readable.", "Check its permissions.") from None
    if path.suffix.lower() in OTHER_ARCHIVES:
        raise UserError(f"'{path}' is an archive that is not supported.", "Unpack it, and give the folder.")
    raise UserError(f"'{path}' is neither a folder nor an archive, .npz or .npy file.", GIVE)


def _bundled_sample() -> ArraySource:
    """10,000 training images of Fashion-MNIST, 1,000 per class."""
    sample = idx_source(Path(__file__).parent.parent / "sample")
    if sample is None:
        raise FileNotFoundError("The bundled sample is missing from this installation of vaekit.")
    return ArraySource("fashion-mnist-sample", sample.key, sample.read, sample.classes)
