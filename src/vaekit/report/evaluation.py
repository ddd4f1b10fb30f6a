"""The evaluation on a run's page: that of `vaekit evaluate`, or a quick one."""

import shlex
from dataclasses import dataclass
from typing import Any

from vaekit.errors import UserError
from vaekit.evaluation.context import EvalContext
from vaekit.evaluation.evaluate import evaluate, training_images
from vaekit.evaluation.results import EvaluationResult, read_evaluation
from vaekit.evaluation.text import sections
from vaekit.plots import grids
from vaekit.report.html import Block, Rows, Section
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import held_out_images
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.logging import progress

QUICK_IMAGES = 500
"""Held-out images of the quick evaluation of a run that was not evaluated, at most."""
QUICK_SAMPLES = 50
"""Importance samples of each of them."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The images that a page shows."""

    images: ImageSet
    split: str


def find_held_out(model: LoadedModel, quiet: bool) -> HeldOut | None:
    """The held-out images of a run's own data; None where they have moved or changed."""
    try:
        return HeldOut(*held_out_images(model, None, quiet))
    except UserError:
        return None


def evaluation_sections(
    model: LoadedModel, held_out: HeldOut | None, quiet: bool
) -> tuple[list[Section], list[Section]]:
    """The diagnosis, and the metrics; none without an evaluation where the images are missing."""
    result = read_evaluation(model.run, model.weights_hash)
    text = "By `vaekit evaluate`; all values are in evaluation.json."
    blocks: list[Any] = []
    if result is not None and model.run.nearest.exists() and result.memorization:
        alt = "New images and the nearest training image of each"
        source = grids.png_source(model.run.nearest.read_bytes())
        blocks.append(Block("sheet", (source, alt), alt))
    if result is None and held_out is not None:
        result = _quick(model, held_out, quiet)
        command = f"vaekit evaluate {shlex.quote(str(model.run.folder))}"
        text = (
            f"Quick evaluation on {result.images:,} images with {QUICK_SAMPLES} importance samples. "
            f"Run `{command}` for full metrics, including sample quality."
        )
    if result is None:
        return [], []
    blocks = [*(Rows(rows, title=title) for title, rows in sections(result).items()), *blocks]
    return [_diagnosis(result)], [Section("Evaluation", text, blocks)]


def _diagnosis(result: EvaluationResult) -> Section:
    faults = [(one.name, one.message, one.fix) for one in result.diagnosis]
    if not faults:
        return Section("Diagnosis", "No problems found.")
    return Section("Diagnosis", "Problems found, and the command that fixes each.", [Block("faults", faults)])


def _quick(model: LoadedModel, held_out: HeldOut, quiet: bool) -> EvaluationResult:
    few, training = held_out.images.spread(QUICK_IMAGES), training_images(model, quiet)
    context = EvalContext(model, few, training, held_out.split, True, model.config.training.seed)
    with progress(len(few) * QUICK_SAMPLES, "Evaluating", "samples", quiet=quiet) as advance:

        def advance_likelihood(n: int, part: str) -> None:
            if part == "Likelihood":
                advance(n)

        result, _ = evaluate(context, QUICK_SAMPLES, None, advance_likelihood)
    unavailable = result.unavailable | {"fidelity": "measured by a full evaluation"}
    return result.model_copy(update={"unavailable": unavailable})
