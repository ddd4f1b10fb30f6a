"""The latent space: `encode`, `interpolate`, `traverse`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from vaekit.cli.common import condition_vector, load_model, output_png, quoted, say
from vaekit.cli.flags import Class, DataSource, FolderClass, ImageCondition, Png, RunFolder


def encode(run: RunFolder, data: DataSource = None, /, *, out: Path | None = None) -> None:
    """Export the latent vector of every image in DATA (CSV, NPZ or Parquet).

    Args:
        out: File to write: .csv, .npz or .parquet (default: a new .csv in the run folder).
    """
    from vaekit.runs.outputs import first_free

    model = load_model(run)
    file = out or first_free(model.run.folder, "latents", ".csv")
    table = model.latents(data, out=file)
    say(f"Wrote the latent vectors of {len(table):,} images to {file}")


def interpolate(
    run: RunFolder,
    a: Path,
    b: Path,
    /,
    *,
    steps: int = 9,
    linear: Annotated[bool, Parameter(negative=())] = False,
    class_: FolderClass = None,
    condition: ImageCondition = None,
    out: Png = None,
) -> None:
    """Interpolate between the images A and B, and save the steps as one picture.

    Args:
        a: Image file to start from.
        b: Image file to end with.
        steps: Number of images, both ends included.
        linear: Interpolate linearly instead of spherically.
    """
    model = load_model(run)
    file = output_png(model, out, "interpolation")

    from vaekit.plots import grids
    from vaekit.plots.labels import file_labels
    from vaekit.runs.inputs import read_files

    given = condition_vector(model, condition)
    ends = read_files(model.loaded, (a, b))
    how: Literal["linear", "spherical"] = "linear" if linear else "spherical"
    images = model.interpolate(a, b, steps=steps, how=how, label=class_, condition=given)
    first, last = file_labels((a, b))
    title = f"Originals at the ends; 0% and 100% are their reconstructions, with {how} interpolation between"
    grids.write(file, grids.strip(ends[0], ends[1], images, (first, last), f"{title} them"))
    say(f"Wrote {file}")


def traverse(
    run: RunFolder,
    /,
    *,
    class_: Class = None,
    condition: ImageCondition = None,
    out: Png = None,
) -> None:
    """Show the effect of the ten most active latent dimensions, one per row."""
    model = load_model(run)
    file = output_png(model, out, "traversal")

    from vaekit.evaluation.likelihood import ACTIVE_VARIANCE
    from vaekit.plots import grids

    given = condition_vector(model, condition)
    traversal = model.traverse(label=class_, condition=given)
    grids.write(file, grids.table(traversal.images, traversal.rows, traversal.columns, traversal.title))
    if (traversal.activity**2 < ACTIVE_VARIANCE).all():
        say(f"The model does not use its latents yet. Run `vaekit evaluate {quoted(run)}` for advice.")
    say(f"Wrote {file}")
