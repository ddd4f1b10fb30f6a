"""Encode, decode, generate and interpolate, with NumPy arrays and tables (CSV, Parquet, NumPy archives)."""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.data.loader import Batch
from vaekit.data.sources.pixels import to_uint8_images
from vaekit.errors import UserError, setting
from vaekit.latents.new_latents import Label, Sampling, model_labels, new_latents
from vaekit.latents.sampling import (
    CHUNK,
    decode_images,
    interpolate,
    labels_between,
    seeded,
    to_uint8,
)
from vaekit.models.vae import VAE
from vaekit.runs.conditions import condition_vectors, file_conditions, label_names
from vaekit.runs.image_set import to_tensor
from vaekit.runs.inputs import (
    Images,
    Labels,
    Latents,
    all_images,
    class_index,
    class_of_file,
    read_files,
)
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.outputs import new_file
from vaekit.utils.files import atomic_file
from vaekit.utils.logging import console_logging, progress

if TYPE_CHECKING:
    import pandas as pd

MAX_INTERPOLATION_STEPS = 100
SUFFIXES = (".csv", ".npz", ".parquet")


def batches(model: LoadedModel, images: Any, labels: Labels | None = None) -> Iterator[Batch]:
    """Iterate over images [N, H, W, C] and their classes in batches on the model's device."""
    x, y = to_tensor(images, model.shape), model_labels(model, labels, len(images))
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        yield x[part].to(model.device), None if y is None else y[part]


def encode(model: LoadedModel, images: Any, labels: Labels | None = None) -> Latents:
    """Posterior means of images [N, H, W, C]: [N, D], or [N, c, h, w] for a spatial latent."""
    means = [model.vae.posterior_of(x, y).mean.cpu() for x, y in batches(model, images, labels)]
    z = torch.cat([torch.zeros(0, model.vae.latents), *means])
    latents: Latents = z.unflatten(1, model.vae.latent_shape).numpy()
    return latents


@torch.no_grad()
def encode_means(
    model: VAE, batches: Iterable[Batch], advance: Callable[[int], None] = lambda _: None
) -> Float[Tensor, "N D"]:
    """Posterior means of all images."""
    means = [torch.zeros(0, model.latents)]
    for index, (x, y) in enumerate(batches):
        with seeded(0, "encode", index):  # for likelihoods that draw binary pixels from an image
            means.append(model.posterior_of(x, y).mean.float().cpu())
        advance(len(x))
    return torch.cat(means)


def latents(model: LoadedModel, data: Any, out: Path | None, quiet: bool) -> "pd.DataFrame":
    """Posterior means of a data set as a table, also written to `out`; see `TrainedModel.latents`."""
    import pandas as pd

    if out is not None:
        out = new_file(model.run, out, SUFFIXES, data)
        _require_writer(out)
    with console_logging(quiet):
        images, paths = all_images(model, data, quiet)
        with progress(len(images), "Encoding", quiet=quiet) as advance:
            z = encode_means(model.vae, images.batches(model.device, CHUNK), advance)
    table = pd.DataFrame(z.numpy(), columns=[f"z{latent}" for latent in range(1, z.shape[1] + 1)])
    table.insert(0, "file", paths)
    if images.class_names is not None:
        table.insert(1, "label", images.class_names)
    if out is not None:
        _write_latents(out, table, model.vae.latent_shape)
    return table


def decode(model: LoadedModel, z: Any, labels: Labels | None = None) -> Images:
    """Decode latents [N, D] or [N, c, h, w] to images."""
    tensor = torch.as_tensor(np.asarray(z, np.float32))
    shape = model.vae.latent_shape
    if tensor.shape[1:] != shape:
        expected = f"[N, {', '.join(map(str, shape))}]"
        raise UserError(f"Latents have shape {[*tensor.shape]}, but this model has {expected}.")
    if not tensor.isfinite().all():
        raise UserError("There are NaN or infinite values in the latents.", "Remove those rows.")
    return _decode(model, tensor.flatten(1), model_labels(model, labels, len(tensor)))


def generate(model: LoadedModel, n: int, *, label: Label, **sampling: Unpack[Sampling]) -> Iterator[Images]:
    """Iterate over chunks of `n` new images; see `TrainedModel.sample`. Arguments are checked at once."""
    return (_decode(model, z, y) for z, y in new_latents(model, n, label=label, **sampling))


def sample_class_names(model: LoadedModel, n: int, label: Label) -> list[str] | None:
    """The classes of the images of `generate`, or texts of their conditions; None without either."""
    if model.columns:
        y = model.vae.labels_in_turn(n) if label is None else condition_vectors(model, label, n)
        return label_names(model, y)
    if label is not None:
        return [model.classes[class_index(label, model.classes)]] * n
    return label_names(model, model.vae.labels_in_turn(n))


def interpolate_images(
    model: LoadedModel, image_a: Any, image_b: Any, steps: int, path: str, label: Label
) -> Images:
    """Interpolate between the posterior means of two images; see `TrainedModel.interpolate`."""
    if path not in ("spherical", "linear"):
        raise UserError(f"The path must be 'spherical' or 'linear' (got {path!r}).")
    if not 2 <= steps <= MAX_INTERPOLATION_STEPS:
        raise UserError(f"must be from 2 to {MAX_INTERPOLATION_STEPS} (got {steps}).", option="steps")
    if label is None and model.vae.classes and isinstance(image_a, Path) and isinstance(image_b, Path):
        files = image_a, image_b
        label = file_conditions(model, files) if model.columns else _class_of_files(model, *files)
    ends = [_one_image(model, image) for image in (image_a, image_b)]
    z_a, z_b = torch.from_numpy(encode(model, np.concatenate(ends), label)).flatten(1)
    z = interpolate(z_a, z_b, steps, path == "spherical")
    y = model_labels(model, label, 2)
    return _decode(model, z, None if y is None else labels_between(y[0], y[1], steps))


def _class_of_files(model: LoadedModel, one: Path, other: Path) -> str:
    """The class of two image files, from their paths; UserError if their classes differ."""
    first, second = (class_of_file(model, path) for path in (one, other))
    if first != second:
        hint = f"Choose the class of all images with {setting('label')}."
        raise UserError(f"{one} is in class {first!r} and {other} in {second!r}.", hint)
    return first


def _decode(model: LoadedModel, z: Tensor, y: Tensor | None) -> Images:
    if not len(z):
        channels, height, width = model.shape
        return np.zeros((0, height, width, channels), np.uint8)
    return to_uint8(decode_images(model.vae, z, y)).numpy()


def _one_image(model: LoadedModel, image: Any) -> Images:
    """Read an image, an array or a file, as [1, H, W, C]."""
    if isinstance(image, (str, Path)):
        return read_files(model, [image])
    return to_uint8_images(image[None] if hasattr(image, "ndim") else np.asarray(image)[None])


def _require_writer(path: Path) -> None:
    """Raise UserError if `path` is a Parquet file and pyarrow is not installed."""
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            hint = "Run `pip install 'vaekit[parquet]'`, or write a .csv file."
            raise UserError(f"Writing {path.name} needs pyarrow, which is not installed.", hint) from None


def _write_latents(path: Path, table: "pd.DataFrame", shape: tuple[int, ...]) -> None:
    """Write a table of latents in the format of the suffix of `path`.

    A .npz file has `files` [N], `labels` [N] if there are classes, and `latents` float32 [N, *shape].
    """
    with atomic_file(path) as temporary:
        if path.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False, lineterminator="\n")
        elif path.suffix.lower() == ".parquet":
            table.to_parquet(temporary, engine="pyarrow", index=False)
        else:
            names = [name for name in ("file", "label") if name in table]
            arrays = {f"{name}s": np.array(table[name].tolist(), np.str_) for name in names}
            z = table.iloc[:, -math.prod(shape) :].to_numpy(np.float32).reshape(len(table), *shape)
            with temporary.open("wb") as file:
                np.savez(file, **{"latents": z, **arrays})  # type: ignore[arg-type]
