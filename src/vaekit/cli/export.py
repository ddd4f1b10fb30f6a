"""`vaekit export`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from vaekit.cli.common import load_model, say
from vaekit.cli.flags import Out, RunFolder

if TYPE_CHECKING:
    from vaekit.trained_model import TrainedModel


def export(
    run: RunFolder,
    /,
    *,
    to: Annotated[Literal["diffusers"], Parameter(help="Format to write.")],
    out: Out = None,
) -> None:
    """Write a model for other programs: diffusers (a folder that AutoencoderKL.from_pretrained reads)."""
    model = load_model(run)
    say(f"Wrote {EXPORTERS[to](model, out)}")


def _diffusers(model: "TrainedModel", out: Path | None) -> Path:
    from vaekit.export.diffusers import export_diffusers
    from vaekit.runs.outputs import first_free

    folder = out or first_free(model.run.folder, "diffusers")
    export_diffusers(model.loaded, folder)
    return folder


EXPORTERS: dict[str, Callable[["TrainedModel", Path | None], Path]] = {"diffusers": _diffusers}
"""What writes each format: the model and `--out` to what was written."""
