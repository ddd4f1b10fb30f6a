"""Encode, decode, generate and interpolate, with NumPy arrays."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.data.loader import Batch
from vaekit.data.sources.conditions import columns_of_texts
from vaekit.data.sources.pixels import to_uint8_images
from vaekit.errors import UserError, setting
from vaekit.latents.new_latents import Label, Sampling, model_labels, new_latents, sampling_prior
from vaekit.latents.sampling import (
    CHUNK,
    decode_images,
    interpolate,
    labels_between,
    seeded,
    to_uint8,
)
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.vae import VAE
from vaekit.runs.conditions import condition_vectors, file_conditions, label_names
from vaekit.runs.image_set import to_tensor
from vaekit.runs.inputs import (
    Images,
    Labels,
    Latents,
    class_index,
    class_of_file,
    read_files,
)
from vaekit.runs.loaded import LoadedModel

MAX_INTERPOLATION_STEPS = 100


class NewImages(NamedTuple):
    """Images that were generated."""

    images: Images
    log_density: Float[np.ndarray, " N"] | None
    """log p(z) of their latents, or log p(z | y), in nats, under the prior at temperature 1. None if nobody
    needs it, and for flow matching, whose density takes longer to compute than the images."""


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


def generate(
    model: LoadedModel, n: int, *, label: Label, with_density: bool = False, **sampling: Unpack[Sampling]
) -> Iterator[NewImages]:
    """Iterate over chunks of `n` new images, with the density of their latents if `with_density`; see
    `TrainedModel.sample`. Arguments are checked at once."""
    drawn = new_latents(model, n, label=label, **sampling)
    source = sampling_prior(model, sampling.get("prior"))
    density = None if isinstance(source, FlowMatching) or not with_density else source.log_prior
    return (_new_images(model, z, y, density) for z, y in drawn)


@torch.no_grad()
def _new_images(
    model: LoadedModel,
    z: Tensor,
    y: Tensor | None,
    density: Callable[[Tensor, Tensor | None], Tensor] | None,
) -> NewImages:
    return NewImages(_decode(model, z, y), density(z, y).cpu().numpy() if density else None)


def sample_class_names(model: LoadedModel, n: int, label: Label) -> list[str] | None:
    """The classes of the images of `generate`, or texts of their conditions; None without either."""
    if model.columns:
        y = model.vae.labels_in_turn(n) if label is None else condition_vectors(model, label, n)
        return label_names(model, y)
    if label is not None:
        return [model.classes[class_index(label, model.classes)]] * n
    return label_names(model, model.vae.labels_in_turn(n))


def sample_columns(model: LoadedModel, n: int, label: Label) -> dict[str, list[str]]:
    """The classes of the images of `generate` as a column `label`, or a column for each of their conditions;
    nothing without either."""
    if model.columns:
        y = model.vae.labels_in_turn(n) if label is None else condition_vectors(model, label, n)
        assert y is not None
        return columns_of_texts(model.columns, y.cpu().numpy())
    names = sample_class_names(model, n, label)
    return {"label": names} if names else {}


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
