"""Encode, decode, generate and interpolate, with NumPy arrays."""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.data.loader import Batch
from vaekit.data.sources.conditions import columns_of_texts
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
    class_index,
    class_of_file,
    read_files,
)
from vaekit.runs.loaded import LoadedModel

MAX_INTERPOLATION_STEPS = 100
SUFFIXES = (".csv", ".npz", ".parquet")
MAX_TEMPERATURE = 100
MAX_SAMPLER_STEPS, MAX_GUIDANCE = 1000, 20


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


def generate(model: LoadedModel, n: int, *, label: Label, **sampling: Unpack[Sampling]) -> Iterator[Images]:
    """Iterate over chunks of `n` new images; see `TrainedModel.sample`. Arguments are checked at once."""
    return (_decode(model, z, y) for z, y in new_latents(model, n, label=label, **sampling))
def generate(
    model: LoadedModel,
    n: int,
    *,
    seed: int,
    label: Label,
    temperature: float,
    prior: Prior | None,
    steps: int | None = None,
    guidance: float | None = None,
    with_density: bool = False,
) -> Iterator[NewImages]:
    """Iterate over chunks of `n` new images, with the density of their latents if `with_density`; see
    `TrainedModel.sample`. Arguments are checked at once."""
    if n < 0:
        raise UserError(f"must be at least 0 (got {n}).", option="n")
    if not 0 <= temperature <= MAX_TEMPERATURE:
        raise UserError(f"must be between 0 and {MAX_TEMPERATURE} (got {temperature}).", option="temperature")
    source = _with_sampler(_sampling_prior(model, prior), steps, guidance)
    y = _sample_labels(model, n, label, source)
    chunks = draw_chunks(source, n, seed, y, temperature)
    density = None if isinstance(source, FlowMatching) or not with_density else source.log_prior
    return (
        _new_images(model, z[: n - first], None if y is None else y[first : first + CHUNK], density)
        for first, z in zip(range(0, n, CHUNK), chunks, strict=True)
    )


@torch.no_grad()
def _new_images(
    model: LoadedModel,
    z: Tensor,
    y: Tensor | None,
    density: Callable[[Tensor, Tensor | None], Tensor] | None,
) -> NewImages:
    return NewImages(_decode(model, z, y), density(z, y).cpu().numpy() if density else None)


def _sampling_prior(model: LoadedModel, name: Prior | None) -> AnyPrior:
    """The prior to sample from: by default the fitted one, if there is one."""
    if name not in (None, "fitted", "model"):
        raise UserError(f"must be 'fitted' or 'model' (got {name!r}).", option="prior")
    if name == "model" or (name is None and model.fitted_prior is None):
        return model.vae
    if model.fitted_prior is None:
        hint = "`vaekit fit-prior RUN` fits one and keeps it if it is better than the model's own."
        raise UserError("This run has no fitted prior.", hint)
    return model.fitted_prior


def _with_sampler(source: AnyPrior, steps: int | None, guidance: float | None) -> AnyPrior:
    """The prior with other settings of its sampler, where they are given."""
    given = {name: value for name, value in (("steps", steps), ("guidance", guidance)) if value is not None}
    if not given:
        return source
    if not isinstance(source, FlowMatching):
        raise UserError("needs a run whose new images come from flow matching.", option=next(iter(given)))
    if steps is not None and not 1 <= steps <= MAX_SAMPLER_STEPS:
        raise UserError(f"must be between 1 and {MAX_SAMPLER_STEPS:,} (got {steps}).", option="steps")
    if guidance is not None and not 0 <= guidance <= MAX_GUIDANCE:
        raise UserError(f"must be between 0 and {MAX_GUIDANCE} (got {guidance}).", option="guidance")
    if guidance is not None and not source.has_guidance:
        raise UserError("needs a run whose images have classes, or are more than a few.", option="guidance")
    source = copy.copy(source)  # the weights are shared
    for name, value in given.items():
        setattr(source, name, value)
    return source


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
