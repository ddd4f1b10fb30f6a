"""config.json, dataset.json and tracker.json of a run, as typed records."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from vaekit.config.config import Config
from vaekit.data.sources.columns import Column
from vaekit.errors import UserError
from vaekit.runs.folder import Run
from vaekit.utils.files import write_text

FORMAT = 1
"""Version of the run folder's layout, written into config.json."""
Length = Annotated[int, Field(ge=1, le=1 << 16)]
DAMAGED_HINT = "Restore it from a copy, or train a new run."
Track = Literal["tensorboard", "wandb", "mlflow"]
"""Trackers that a run may be logged to."""


class RunMetadata(BaseModel, frozen=True):
    """config.json: everything needed to rebuild the model and to resume training."""

    format: Literal[1] = 1
    preset: str
    config: Config
    """The requested configuration, with "auto" where the user left a choice open."""
    shape: tuple[Length, Length, Length]
    """(C, H, W) of the images."""
    classes: tuple[str, ...]
    conditions: tuple[Column, ...] = ()
    """The columns of a table that the images are conditioned on."""
    source: str | None
    """Absolute path of the data; None for data in memory."""
    from_run: str | None = None
    """Absolute path of the run whose weights this one started from; None for new weights."""
    seed: int
    device: str
    hardware: str = ""
    """The GPU, or the processor's capabilities; on others, results differ in their last bits."""
    versions: dict[str, str]
    threads: int
    precision: str = "auto"
    """Precision, batch size and compilation as resolved from "auto"."""
    batch_size: int | str = "auto"
    compile: str = "auto"


class SkippedFile(BaseModel):
    path: str
    reason: str


class CopiedFile(BaseModel):
    path: str
    of: str


class DatasetSummary(BaseModel, frozen=True):
    """dataset.json: a description of the training data."""

    fingerprint: str
    """Hash of the contents: images, labels and splits."""
    contents: str = ""
    """Hash of the distinct images alone, whatever their splits."""
    source: str
    """A description for people; the path is `RunMetadata.source`."""
    images: int
    width: int
    height: int
    channels: int
    classes: tuple[str, ...] = ()
    splits: dict[str, int]
    """Images in each of train, validation and test."""
    counts: dict[str, Any] = {}
    """The same by class, if there are classes."""
    skipped: list[SkippedFile]
    copies: list[CopiedFile] = []
    """Images that are left out as copies of others."""
    files_that_are_no_images: int = 0
    notes: list[str] = []
    """What the data were taken for, a sentence each."""
    reading: dict[str, Any] = {}
    """How values became levels: "limits", "level_limits" and "background"."""


class TrackerRecord(BaseModel, frozen=True):
    """tracker.json: the tracker that a run is logged to, which a resumed run keeps."""

    track: Track
    run_id: str | None = None
    """What the tracker calls the run; None until it has opened one."""


def read_metadata(run: Run) -> RunMetadata:
    """Read config.json; UserError if it is missing, damaged, or of another format."""
    if not run.config.is_file():
        hint = "Give a folder that `vaekit train` wrote."
        raise UserError(f"{run.folder} is not a run (it has no config.json).", hint)
    try:
        record = json.loads(run.config.read_text(encoding="utf-8"))
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{run.config} is damaged.", DAMAGED_HINT) from None
    if version != FORMAT:
        message = f"{run.config} has format {version}, and this version reads format {FORMAT}."
        raise UserError(message, "Upgrade vaekit.")
    try:
        return RunMetadata.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"{run.config} is damaged ({reason}).", DAMAGED_HINT) from None


def read_dataset_summary(run: Run) -> DatasetSummary:
    """Read dataset.json; UserError if it is missing or damaged."""
    try:
        return DatasetSummary.model_validate(json.loads(run.dataset.read_bytes()))
    except (OSError, ValueError):
        raise UserError(f"{run.dataset} is missing or damaged.", DAMAGED_HINT) from None


def read_tracker(run: Run) -> TrackerRecord | None:
    """Read tracker.json; None if it is missing or damaged."""
    try:
        return TrackerRecord.model_validate_json(run.tracker.read_bytes())
    except (OSError, ValueError):
        return None


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, record.model_dump())  # model_dump_json refuses file names that are not UTF-8


def write_json(path: Path, record: Any) -> None:
    write_text(path, json.dumps(record, indent=2) + "\n")
