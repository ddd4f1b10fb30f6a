"""The model card: README.md with metadata that the Hugging Face Hub reads."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from vaekit.data.packs.pack import channel_text
from vaekit.evaluation.results import EvaluationResult, Memorization
from vaekit.evaluation.text import format_tables
from vaekit.models.summary import count_parameters
from vaekit.runs.inputs import format_names
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import DatasetSummary
from vaekit.version import VERSION

TABLE_WIDTH = 100
"""Columns of the tables of an evaluation."""


def model_card(
    model: LoadedModel,
    dataset: DatasetSummary,
    evaluation: EvaluationResult | None,
    contained: Sequence[str],
    license: str,
    name: str,
    address: str,
) -> str:
    """The text of a model card.

    Args:
        dataset: what may be said of the training data.
        evaluation: the metrics to list; None where the model was not evaluated.
        contained: what the weights hold of the training data, a sentence each.
        license: its identifier.
        name: the title.
        address: what `vaekit.load` is given.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vaekit.export", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # it is Markdown: texts of the user's pass `plain` or `json`
    )
    environment.filters |= {"plain": _plain, "json": lambda value: json.dumps(value, ensure_ascii=False)}
    metadata = {
        "license": license,
        "library_name": "vaekit",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["variational-autoencoder", "vae"],
        **_model_index(name, evaluation),
    }
    return environment.get_template("card.md").render(
        name=name,
        address=address,
        license=license,
        version=VERSION,
        metadata=metadata,
        facts=_facts(model, dataset),
        contained=contained,
        tables="" if evaluation is None else "\n".join(format_tables(evaluation, TABLE_WIDTH)),
        evaluation=evaluation,
        copies=_copies(evaluation.memorization if evaluation else None),
    )


def _plain(text: str) -> str:
    """A text on one line in which Markdown and HTML mean nothing."""
    return re.sub(r"([\\`*_\[\]<>&|~#$:@!])", r"\\\1", " ".join(text.split()))


def _facts(model: LoadedModel, dataset: DatasetSummary) -> dict[str, str]:
    channels, height, width = model.shape
    config, fitted = model.config, model.fitted_prior
    given = ", ".join(column.description for column in model.columns)
    return {
        "images": f"{width}x{height} pixels, {channel_text(channels)}",
        "training images": f"{dataset.splits['train']:,}",
        **({"classes": format_names(model.classes)} if model.classes else {}),
        **({"conditions": given} if given else {}),
        "latents": str(config.latents),
        "encoder, decoder": f"{config.encoder.kind}, {config.decoder.kind}",
        "likelihood": config.likelihood.kind,
        "sampling prior": "the model's own" if fitted is None else fitted.name,
        "weights": f"{count_parameters(model.vae):,}",
    }


def _copies(memorization: Memorization | None) -> str:
    """A sentence on memorized images."""
    if memorization is None:
        return "Whether it reproduces training images has not been measured, so it may."
    if memorization.copied is None:
        return (
            "Too few images were compared to tell whether it reproduces training images. The median distance "
            f"to the nearest of them is {memorization.nearest_to_new:.1f} levels of 255 for new images, and "
            f"{memorization.nearest_to_held_out:.1f} for held-out ones."
        )
    near = f"{memorization.copied:.1%} of its new images are suspiciously near to a training image"
    expected = f"{memorization.copied_expected or 0:.1%} are expected of a model that copies none"
    chance = memorization.copied_by_chance
    more = chance is not None and memorization.copied > chance
    end = "so it reproduces some of them" if more else "which is no sign that it reproduces them"
    return f"{near}, where {expected}, {end}."


def _model_index(name: str, evaluation: EvaluationResult | None) -> dict[str, Any]:
    """Results of the evaluation as the Hub reads them."""
    if evaluation is None:
        return {}
    results = {
        "task": {"type": "unconditional-image-generation"},
        "dataset": {"type": "images", "name": f"{evaluation.images:,} images of {evaluation.data}"},
        "metrics": [
            {"type": kind, "name": text, "value": value}
            for kind, text, value in _metrics(evaluation)
            if value is not None and math.isfinite(value)
        ],
    }
    return {"model-index": [{"name": name, "results": [results]}]}


def _metrics(evaluation: EvaluationResult) -> list[tuple[str, str, float | None]]:
    """Type, name and value of each metric."""
    reconstruction = evaluation.reconstruction
    rows: list[tuple[str, str, float | None]] = [
        ("psnr", "PSNR of reconstructions in dB", reconstruction.psnr),
        ("ssim", "SSIM of reconstructions", reconstruction.ssim),
    ]
    if likelihood := evaluation.likelihood:
        samples = f"{evaluation.samples:,} importance samples"
        rows += [
            ("nll", f"negative log-likelihood in nats per image, {samples}", likelihood.nll),
            ("bits_per_dimension", f"bits per dimension, {samples}", likelihood.bits_per_dimension),
        ]
    if fidelity := evaluation.fidelity:
        features = f"features of {fidelity.extractor}"
        for metric, interval in fidelity.sets["new"]:
            rows.append((metric, f"{metric} of new images, {features}", interval.value))
    return rows
