"""Formats that a trained model can be exported to."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from vaekit.config.overrides import alternatives
from vaekit.errors import UserError
from vaekit.export.diffusers import export_diffusers
from vaekit.export.onnx import write_onnx
from vaekit.export.web import write_web
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.outputs import filled_folder, first_free
from vaekit.utils.logging import console_logging


def export_model(
    model: LoadedModel, to: str, out: str | Path | None, quiet: bool, runtime: str | Path | None
) -> Path:
    """Write a model to a new folder in a format; see `TrainedModel.export`."""
    writers: dict[str, Callable[[LoadedModel, Path], None]] = {
        "onnx": write_onnx,
        "web": partial(write_web, runtime=runtime),
        "diffusers": partial(export_diffusers, quiet=quiet),
    }
    if to not in writers:
        raise UserError(f"must be {alternatives(list(writers))} (got {to!r}).", option="to")
    folder = first_free(model.run.folder / "exported", to) if out is None else Path(out)
    with console_logging(quiet), filled_folder(model.run, folder) as temporary:
        writers[to](model, temporary)
    return folder
