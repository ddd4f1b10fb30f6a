"""The latent space: `encode`, `interpolate`, `traverse`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from vaekit.cli.flags import Class, DataSource, Png, RunFolder


def encode(
    run: RunFolder,
    data: DataSource = None,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="File to write: .csv, .npz or .parquet; default: a new .csv in the run folder.")
    ] = None,
) -> None:
    """Write where every image of DATA lies in the latent space: a table of posterior means."""
    from vaekit.api import load
    from vaekit.runs.outputs import first_free

    file = out or first_free(run, "latents", ".csv")
    table = load(run).latents(data, out=file)
    print(f"Wrote the latents of {len(table):,} images to {file}")


def interpolate(
    run: RunFolder,
    a: Annotated[Path, Parameter(help="Image file to begin with.")],
    b: Annotated[Path, Parameter(help="Image file to end with.")],
    /,
    *,
    steps: Annotated[int, Parameter(help="Number of images, both ends included.")] = 9,
    linear: Annotated[bool, Parameter(negative=(), help="Along a straight line instead of a great circle.")] = False,
    class_: Annotated[
        str | None, Parameter(name="--class", help="Class to draw all with (default: their folder's name).")
    ] = None,
    out: Png = None,
) -> None:
    """Draw the way from image A to image B through the latent space, as a strip."""
    from vaekit.api import load
    from vaekit.data.packs.pack import load_images
    from vaekit.plots import grids
    from vaekit.runs.outputs import first_free, new_file

    model = load(run)
    file = new_file(model.run, out or first_free(run, "interpolation", ".png"), (".png",))
    ends = load_images((a, b), model.config.data, model.shape)
    how: Literal["linear", "spherical"] = "linear" if linear else "spherical"
    between = model.interpolate(a, b, steps=steps, how=how, label=class_)
    names = (a.stem, b.stem) if a.stem != b.stem else (f"{a.parent.name}/{a.stem}", f"{b.parent.name}/{b.stem}")
    title = f"Originals at the ends; 0% and 100% are their reconstructions, with the {how} way between them"
    grids.write(file, grids.strip(ends[0], ends[1], between, names, title))
    print(f"Wrote {file}")


def traverse(run: RunFolder, /, *, class_: Class = None, out: Png = None) -> None:
    """Draw what the ten most active latents do to a picture: a row for each."""
    from vaekit.api import load
    from vaekit.evaluation.likelihood import ACTIVE
    from vaekit.plots import grids
    from vaekit.runs.outputs import first_free, new_file

    model = load(run)
    file = new_file(model.run, out or first_free(run, "traversal", ".png"), (".png",))
    traversal = model.traverse(label=class_)
    grids.write(file, grids.table(traversal.images, traversal.rows, traversal.columns, traversal.title))
    if (traversal.activity**2 < ACTIVE).all():
        print("No latent depends on the image: `vaekit evaluate` tells why, and what to do")
    print(f"Wrote {file}")
