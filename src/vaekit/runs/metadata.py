"""config.json and dataset.json of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaekit.errors import UserError
from vaekit.runs.folder import Run
from vaekit.utils.files import write_text

FORMAT = 1
"""Version of the run folder's layout, written into config.json."""


RECORD = {"preset", "config", "shape", "classes", "source", "device", "threads", "versions"}
"""What a reader of config.json counts on."""


def read_config(run: Run) -> dict[str, Any]:
    """config.json as it was written.

    Raises:
        UserError: no run there, or one of a format this version does not know.
    """
    if not run.config.is_file():
        raise UserError(f"There is no run in {run.folder} (no config.json): name the folder that `vaekit train` wrote.")
    try:
        record = json.loads(run.config.read_text(encoding="utf-8"))
        known = record["format"] == FORMAT
        if not record.keys() >= RECORD:
            raise KeyError
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{run.config} is damaged: restore it from a copy, or train anew.") from None
    if not known:
        raise UserError(
            f"{run.config} has format {record['format']}, this vaekit reads format {FORMAT}: upgrade vaekit."
        )
    return dict(record)


def read_dataset(run: Run) -> dict[str, Any]:
    """dataset.json as it was written.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        record = json.loads(run.dataset.read_text(encoding="utf-8"))
        if not record.keys() >= {"fingerprint", "source", "images", "width", "height", "splits", "skipped"}:
            raise KeyError
    except (OSError, ValueError, KeyError, AttributeError):
        raise UserError(f"{run.dataset} is missing or damaged: restore it from a copy, or train anew.") from None
    return dict(record)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(record, indent=2) + "\n")
