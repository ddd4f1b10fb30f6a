"""What a model is worth: `evaluate`, `rank`, `report`."""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vaekit.cli.flags import DataSource, RunFolder


def evaluate(
    run: RunFolder,
    /,
    *,
    data: Annotated[
        str | None, Parameter(help="Images to judge by; default: the test or else the validation side of its own.")
    ] = None,
    samples: Annotated[int, Parameter(help="Importance samples of every image; more come closer to log p(x).")] = 1000,
    new_images: Annotated[int, Parameter(help="New images to compare with as many held-out ones.")] = 1000,
    seed: Annotated[int, Parameter(help="Random seed of the samples.")] = 0,
) -> None:
    """Judge the model by held-out images: likelihood, reconstructions, new images beside them, and a diagnosis."""
    from vaekit.api import load
    from vaekit.evaluation.text import lines

    model = load(run)
    result = model.evaluate(data, samples=samples, new_images=new_images, seed=seed)
    print("\n".join(lines(result)))
    print(f"Wrote {model.run.evaluation}; `vaekit report {shlex.quote(str(run))}` shows it on a page")


def rank(
    run: RunFolder,
    data: DataSource = None,
    /,
    *,
    samples: Annotated[int, Parameter(help="Importance samples of every image; more come closer to log p(x).")] = 100,
    seed: Annotated[int, Parameter(help="Random seed of the samples.")] = 0,
    out: Annotated[Path | None, Parameter(help="CSV file to write; default: a new one in the run folder.")] = None,
) -> None:
    """Rank the images of DATA by their likelihood, odd ones first: a table, and a sheet of both its ends."""
    from vaekit.api import load
    from vaekit.evaluation.text import ranking_lines
    from vaekit.runs.outputs import first_free

    file = out or first_free(run, "ranking", ".csv", ".png")
    ranking = load(run).rank(data, samples=samples, seed=seed, out=file)
    print("\n".join(ranking_lines(ranking, samples)))
    print(f"Wrote {file} and {file.with_suffix('.png')}")


def report(run: RunFolder, /) -> None:
    """Write report.html: the whole run on one page that opens without a network."""
    from vaekit.api import load

    print(f"Wrote {load(run).report()}")
