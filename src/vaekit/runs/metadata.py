"""config.json and dataset.json of a run, as typed records."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from vaekit.config.config import Config
from vaekit.errors import UserError
from vaekit.runs.folder import Run
from vaekit.utils.files import write_text

FORMAT = 1
"""Version of the run folder's layout, written into config.json."""


class RunMetadata(BaseModel):
    """config.json: everything needed to rebuild the model and to resume its training."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    preset: str
    config: Config
    """What was asked for; "auto" stays here as it was given."""
    shape: tuple[int, int, int]
    """(C, H, W) of the images."""
    classes: tuple[str, ...]
    source: str | None
    """Absolute path of the data; None where they came from memory."""
    seed: int
    device: str
    hardware: str = ""
    """The GPU, or what the processor can do: on another one results differ in their last bits."""
    versions: dict[str, str]
    threads: int
    precision: str = "auto"
    """What precision, batch size and compile choice came to."""
    batch_size: int | str = "auto"
    compile: str = "auto"


class SkippedFile(BaseModel):
    """A file that was not used, and why."""

    path: str
    reason: str


class DatasetSummary(BaseModel):
    """dataset.json: what the data were."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fingerprint: str
    """Hash of the contents: images, labels and splits."""
    source: str
    """For a person; `RunMetadata.source` is the path."""
    images: int
    width: int
    height: int
    channels: int
    classes: tuple[str, ...] = ()
    splits: dict[str, int]
    """Images in each of train, validation and test."""
    counts: dict[str, Any] = {}
    """The same by class, where there are classes."""
    skipped: list[SkippedFile]
    files_that_are_no_images: int = 0


def read_metadata(run: Run) -> RunMetadata:
    """Read config.json.

    Raises:
        UserError: no run there, a damaged one, or one of a format that this version does not read.
    """
    if not run.config.is_file():
        raise UserError(
            f"{run.folder} is not a run (it has no config.json).", "Give a folder that `vaekit train` wrote."
        )
    hint = "Restore it from a copy, or train a new run."
    try:
        record = json.loads(run.config.read_text(encoding="utf-8"))
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{run.config} is damaged.", hint) from None
    if version != FORMAT:
        raise UserError(
            f"{run.config} has format {version}, and this version reads format {FORMAT}.", "Upgrade vaekit."
        )
    try:
        return RunMetadata.model_validate(record)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{run.config} is damaged ({where}: {error.errors()[0]['msg']}).", hint) from None


def read_dataset_summary(run: Run) -> DatasetSummary:
    """Read dataset.json.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return DatasetSummary.model_validate(json.loads(run.dataset.read_bytes()))
    except (OSError, ValueError):
        hint = "Restore it from a copy, or train a new run."
        raise UserError(f"{run.dataset} is missing or damaged.", hint) from None


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record as JSON, whole or not at all."""
    write_json(path, record.model_dump())  # pydantic's own writer refuses names of files that are not UTF-8


def write_json(path: Path, record: Any) -> None:
    """Write what JSON can hold, whole or not at all."""
    write_text(path, json.dumps(record, indent=2) + "\n")
