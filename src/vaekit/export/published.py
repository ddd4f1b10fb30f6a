"""The files of a published model: those that `vaekit.load` needs, without what is private, new images, and a
model card."""

import re
import shutil
from pathlib import Path

import numpy as np

from vaekit.config.config import SLOTS
from vaekit.data.packs.pack import BUNDLED
from vaekit.errors import UserError
from vaekit.evaluation.results import EvaluationResult, read_evaluation
from vaekit.export.card import model_card
from vaekit.latents.arrays import generate, sample_class_names
from vaekit.plots import grids
from vaekit.runs.folder import Run
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import (
    DatasetSummary,
    RunMetadata,
    read_dataset_summary,
    read_metadata,
    write_record,
)
from vaekit.utils.files import sha256, write_text
from vaekit.utils.logging import console_logging, log, status

NEW_IMAGES = 64
"""Images in samples.png."""
FILE_SETTINGS = dict.fromkeys(("include", "exclude", "labels", "label_column", "group"))
"""Settings that name files of the training data."""


def require_license(license: str | None) -> str:
    """The identifier of a licence in lower case; UserError without one."""
    hint = "Give its identifier, such as apache-2.0, mit, cc-by-4.0, or other."
    if not license:
        raise UserError("is required, and is not guessed.", hint, "license")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license.lower()):
        raise UserError(f"{license!r} is no identifier of a licence.", hint, "license")
    return license.lower()


def require_publishable(model: LoadedModel) -> None:
    """Raise a UserError for a model with a custom module, which could not be loaded from its files."""
    for slot in SLOTS:
        if getattr(model.config, slot).kind == "own":
            raise UserError(f"The {slot} of this model is a custom module, whose code is not published.")


def write_published(
    model: LoadedModel, folder: Path, license: str, name: str, address: str, quiet: bool
) -> None:
    """Write the files of a published model to a folder.

    Args:
        license: its identifier.
        name: the title of the model card.
        address: what the model card gives to `vaekit.load`.
    """
    published, evaluation = Run(folder), read_evaluation(model.run, model.weights_hash)
    metadata, dataset = read_metadata(model.run), public_dataset(read_dataset_summary(model.run))
    if not model.run.weights.is_file() or sha256(model.run.weights) != model.weights_hash:
        raise UserError(f"{model.run.weights} has changed since this model was loaded.", "Load it again.")
    with console_logging(quiet), status("Writing the files to publish"):
        write_record(published.config, public_metadata(metadata))
        write_record(published.dataset, dataset)
        shutil.copyfile(model.run.weights, published.weights)
        if model.fitted_prior is not None:
            shutil.copyfile(model.run.latent_prior, published.latent_prior)
        if evaluation is not None:
            evaluation = public_evaluation(evaluation)
            write_text(published.evaluation, evaluation.model_dump_json(indent=2) + "\n")
        _write_new_images(model, published.new_images)
        contained = training_data_inside(model)
        text = model_card(model, dataset, evaluation, contained, license, name, address)
        write_text(published.card, text)
        for sentence in contained:
            log.warning(sentence)


def public_metadata(metadata: RunMetadata) -> RunMetadata:
    """config.json without paths and hardware."""
    data = metadata.config.data.model_copy(update=FILE_SETTINGS)
    config = metadata.config.model_copy(update={"data": data})
    private = {"source": None, "from_run": None, "hardware": ""}
    return metadata.model_copy(update={"config": config, **private})


def public_dataset(dataset: DatasetSummary) -> DatasetSummary:
    """dataset.json without names of files."""
    source = dataset.source if dataset.source == BUNDLED else "the training data"
    return dataset.model_copy(update={"source": source, "skipped": [], "copies": [], "notes": []})


def public_evaluation(result: EvaluationResult) -> EvaluationResult:
    """evaluation.json without names of files and commands."""
    memorization = result.memorization and result.memorization.model_copy(update={"duplicate_files": []})
    data = "the training data" if result.same_dataset else "other data"
    return result.model_copy(update={"data": data, "memorization": memorization, "diagnosis": []})


def training_data_inside(model: LoadedModel) -> list[str]:
    """What the weights hold of the training data, a sentence each."""
    held = []
    if (pseudo_inputs := getattr(model.vae.prior, "pseudo_inputs", None)) is not None:
        held.append(f"The weights hold {len(pseudo_inputs)} images that started as training images.")
    if model.columns:
        names, count = ", ".join(column.name for column in model.columns), len(model.vae.condition_rows)
        held.append(f"The weights hold conditions of up to {count:,} training images ({names}).")
    return held


def _write_new_images(model: LoadedModel, path: Path) -> None:
    """Draw a sheet of new images, with their classes; conditions would be those of training images."""
    chunks = generate(model, NEW_IMAGES, seed=0, label=None, temperature=1.0, prior=None)
    labels = None if model.columns else sample_class_names(model, NEW_IMAGES, None)
    grids.write(path, grids.grid(np.concatenate([chunk.images for chunk in chunks]), labels=labels))
