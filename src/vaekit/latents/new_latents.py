"""New latents: draws of a prior, in chunks of one seed each."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypedDict, Unpack

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vaekit.errors import UserError, setting
from vaekit.latents.sampling import CHUNK, AnyPrior, draw_chunks
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.terms import Labels as LabelTensor
from vaekit.runs.conditions import condition_vectors
from vaekit.runs.inputs import Labels, class_index, class_indices, format_names
from vaekit.runs.loaded import LoadedModel

Label = str | int | Mapping[str, Any] | NDArray[Any] | None
"""The class or the conditions of all images; see `condition_vectors`."""
Prior = Literal["fitted", "model"]
"""The prior fitted to the latents after training, or the model's own."""
MAX_TEMPERATURE = 100
MAX_SAMPLER_STEPS, MAX_GUIDANCE = 1000, 20


class Sampling(TypedDict, total=False):
    """How new latents are drawn; see `TrainedModel.sample`."""

    seed: int
    temperature: float
    prior: Prior | None
    steps: int | None
    guidance: float | None


def new_latents(
    model: LoadedModel, n: int, *, label: Label = None, start: int = 0, **sampling: Unpack[Sampling]
) -> Iterator[tuple[Float[Tensor, "B D"], LabelTensor | None]]:
    """Iterate over draws `start` to `n` with their labels, in chunks of `CHUNK`; `start` is a multiple of it.
    Arguments are checked at once."""
    temperature = sampling.get("temperature", 1.0)
    if n < 0:
        raise UserError(f"must be at least 0 (got {n}).", option="n")
    if not 0 <= temperature <= MAX_TEMPERATURE:
        raise UserError(f"must be between 0 and {MAX_TEMPERATURE} (got {temperature}).", option="temperature")
    source = sampling_prior(model, sampling.get("prior"))
    source = _with_sampler(source, sampling.get("steps"), sampling.get("guidance"))
    y = _sample_labels(model, n, label, source)
    chunks = draw_chunks(source, n, sampling.get("seed", 0), y, temperature, start)
    return (
        (z[: n - first], None if y is None else y[first : first + CHUNK])
        for first, z in zip(range(start, n, CHUNK), chunks, strict=True)
    )


def sampling_prior(model: LoadedModel, name: Prior | None) -> AnyPrior:
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


def _sample_labels(model: LoadedModel, n: int, label: Label, source: AnyPrior) -> Tensor | None:
    """Class indices [n] or conditions [n, K] on the device; by default those of a conditional model in turn.

    An unconditional model takes a label if its prior was fitted to images with classes.
    """
    classes = model.vae.classes
    if label is None:
        return model.vae.labels_in_turn(n)
    if model.columns:
        return condition_vectors(model, label, n)
    if not classes and isinstance(source, FittedPrior | FlowMatching) and len(source.shares) > 1:
        return torch.full((n,), class_index(label, model.classes), device=model.device)
    if not classes and model.classes and model.fitted_prior is not None:
        message = "This model was trained without labels, and its own prior has no classes."
        raise UserError(message, f"Omit {setting('prior', 'model')}.")
    return model_labels(model, label, n)


def model_labels(model: LoadedModel, labels: Labels | None, n: int) -> Tensor | None:
    """Class indices [n] or conditions [n, K] on the device; None for an unconditional model, which takes no
    labels."""
    if model.columns:
        return condition_vectors(model, labels, n)
    if not model.vae.classes:
        if labels is not None:
            hint = f"Train one with {setting('conditional', True)} to choose a class."
            raise UserError("This model has no classes.", hint)
        return None
    if labels is None:
        message = "This model is conditional, so it needs the class of every image."
        raise UserError(message, f"Give one of {format_names(model.classes)}.", "labels")
    return class_indices(labels, n, model.classes).to(model.device)
