"""What commands share: load a model, choose where to write, say what was written."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaekit.utils.logging import fit_terminal

if TYPE_CHECKING:
    from vaekit.trained_model import TrainedModel


def say(text: str) -> None:
    """Print a result, wrapped to the width of the terminal."""
    print(fit_terminal(text), flush=True)


def load_model(run: Path) -> "TrainedModel":
    """The model of a run; imports torch."""
    from vaekit.api import load

    return load(run)


def condition_vector(model: "TrainedModel", condition: str | None) -> Any:
    """The conditions that are given on the command line, as a vector; says which are open, and which are
    unusual. A model without conditions gets the text, which it refuses."""
    if condition is None or not model.loaded.columns:
        return condition
    from vaekit.data.sources.conditions import vector_of
    from vaekit.utils.logging import console_logging

    with console_logging():
        return vector_of(model.loaded.columns, condition)


def output_png(model: "TrainedModel", out: Path | None, name: str) -> Path:
    """A PNG file that may be written: `out`, or a new one in the run folder."""
    from vaekit.runs.outputs import first_free, new_file

    return new_file(model.run, out or first_free(model.run.folder, name, ".png"), (".png",))


def output_folder(model: "TrainedModel", out: Path | None, name: str) -> Path:
    """An empty folder for images: `out`, or a new one in the run folder."""
    from vaekit.runs.outputs import first_free, new_folder

    return new_folder(model.run, out or first_free(model.run.folder / name, "set"))


def quoted(path: Path) -> str:
    """A path as it is typed in a shell."""
    return shlex.quote(str(path))
