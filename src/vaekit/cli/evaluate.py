"""How good a model is: `evaluate`, `rank`, `report`."""

import shutil
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vaekit.cli.common import load_model, quoted, say
from vaekit.cli.flags import DataSource, RunFolder, Samples, SampleSeed


def evaluate(
    run: RunFolder,
    /,
    *,
    data: str | None = None,
    samples: Samples = 1000,
    new_images: int = 1000,
    seed: SampleSeed = 0,
) -> None:
    """Evaluate on held-out images: likelihood, image quality and a diagnosis.

    Args:
        data: Images to evaluate on (default: the run's test set, or its validation set).
        new_images: Number of generated images for the quality metrics.
    """
    model = load_model(run)
    result = model.evaluate(data, samples=samples, new_images=new_images, seed=seed)

    from vaekit.evaluation.results import EvaluationResult
    from vaekit.evaluation.text import format_evaluation

    width = shutil.get_terminal_size().columns
    say("\n".join(format_evaluation(EvaluationResult.model_validate(result), width)))
    say(f"Wrote {model.run.evaluation}. `vaekit report {quoted(run)}` shows it on a page.")


def rank(
    run: RunFolder,
    data: DataSource = None,
    /,
    *,
    samples: Samples = 5,
    seed: SampleSeed = 0,
    maps: Annotated[bool, Parameter(negative=())] = False,
    out: Path | None = None,
) -> None:
    """Sort the images in DATA from least to most likely; writes a table and a picture of both extremes.

    Args:
        maps: Show where each image is unlikely, pixel by pixel (needs the training images).
        out: CSV file to write (default: a new one in the run folder).
    """
    from vaekit.evaluation.ranking import ENDINGS, MAP_ENDINGS
    from vaekit.evaluation.text import format_ranking
    from vaekit.runs.outputs import first_free

    endings = ENDINGS + (MAP_ENDINGS if maps else ())
    model = load_model(run)
    file = out or first_free(model.run.folder, "ranking", *endings)
    ranking = model.rank(data, samples=samples, seed=seed, maps=maps, out=file)
    say("\n".join(format_ranking(ranking, samples, shutil.get_terminal_size().columns)))
    *first, last = (str(file.with_name(f"{file.stem}{ending}")) for ending in (file.suffix, *endings[1:]))
    say(f"Wrote {', '.join(first)} and {last}")


def report(run: RunFolder, /) -> None:
    """Write report.html, a self-contained summary of the run (works offline)."""
    say(f"Wrote {load_model(run).report()}")
