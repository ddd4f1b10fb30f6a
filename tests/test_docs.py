"""Numbers in the documentation are those of the code."""

import inspect
import math
from pathlib import Path

import pytest

from vaekit.data.decoding.decode import MAX_PIXELS
from vaekit.data.packs import checks, survey
from vaekit.evaluation import diagnosis, likelihood, maps, memorization, ranking
from vaekit.export import published, web
from vaekit.export.onnx import BATCHES, MAX_DIFFERENCE
from vaekit.latents import densities, fit_prior, groups, traverse
from vaekit.models import flow_matching, likelihoods, posteriors, vae
from vaekit.models.distributions import discretized, logistic_mixture
from vaekit.models.fitted_prior import Splines
from vaekit.models.objectives import perceptual
from vaekit.runs import unfinished
from vaekit.training import data_init, tracking

DOCS = Path(__file__).parent.parent / "docs"
COUPLINGS = {3: "three"}[inspect.signature(Splines).parameters["steps"].default]
SMALLEST_SIGMA = {8: "an eighth"}[round(2 * discretized.HALF_LEVEL / likelihoods.MIN_SIGMA)]
FIGURES = {
    "export.md": [
        f"at batches of {BATCHES[0]}, {BATCHES[1]} and {BATCHES[2]},",
        f"if it is above 1e{math.log10(MAX_DIFFERENCE):.0f}.",
        f"a loop of its {flow_matching.STEPS} steps",
        f"evaluated {2 * (flow_matching.STEPS + 1)} times",
        f"up to {web.DIRECTIONS} directions",
        f"{web.DRAWS} new images on the plane",
        f"npm pack {web.PACKAGE}",
    ],
    "mathematics.md": [
        f"`{posteriors.LOG_VARIANCE_BOUND:.0f} tanh(v / {posteriors.LOG_VARIANCE_BOUND:.0f})`",
        f"with v clipped to {' and '.join(f'{bound:.0f}' for bound in posteriors.CLIPPED)} (",
        f"copies with noise of {data_init.COPY_NOISE}.",
        f"With h = 1/{1 / discretized.HALF_LEVEL:.0f}",
        f"between {SMALLEST_SIGMA} of a level and {likelihoods.MAX_SIGMA:.0f}:",
        f"averaged over {logistic_mixture.QUADRATURE_NODES} points",
        f"has a variance over images above {likelihood.ACTIVE_VARIANCE} (",
        f"flows the mean of {traverse.MEAN_SAMPLES:,} draws",
        f"each of up to {fit_prior.MAX_ENCODINGS:,} training",
        f"mixtures of {', '.join(map(str, fit_prior.COMPONENTS))} Gaussians",
        f"up to {flow_matching.MAX_GROUPS} groups of at least {groups.IMAGES_PER_GROUP} images",
        f"`--guidance` w = {flow_matching.GUIDANCE:.0f} by default",
        f"by {flow_matching.STEPS} steps of the two-step Adams-Bashforth method",
        f"mean log r over {fit_prior.FLOW_MATCHING_ENCODINGS} validation latents",
        f"of {perceptual.IMAGES_PER_BATCH} images of a batch",
        f"a flow of {COUPLINGS} spline couplings, at most {densities.FLOW_STEPS:,} steps",
    ],
    "inspecting.md": [
        f"from -{traverse.MAX_DEVIATIONS} to {traverse.MAX_DEVIATIONS} standard deviations",
        f"over up to {traverse.MAX_STATS_IMAGES:,} images ({traverse.MEAN_SAMPLES:,} draws",
        f"fewer than {traverse.MIN_VALIDATION_IMAGES}, and",
        f"where it has at least {traverse.MIN_CLASS_IMAGES}.",
        f"the {ranking.SHEET_IMAGES} images at either end",
        f"It takes {ranking.RANK_SAMPLES} importance samples",
        f"averaged over {maps.WINDOW}x{maps.WINDOW} pixels",
        f"the {maps.THRESHOLD_QUANTILE} quantile of the pixels of the maps of",
        f"up to {maps.MAX_HELD_OUT} held-out training images",
        f"than {math.isqrt(maps.MAX_HELD_OUT_PIXELS // maps.MAX_HELD_OUT)}x",
        f"from the {maps.LOW_QUANTILE} quantile of the held-out pixels",
    ],
    "publishing.md": [
        f"| `samples.png` | {published.NEW_IMAGES} new images |",
        f"the conditions of up to {vae.CONDITION_ROWS:,} training images",
    ],
    "diffusers.md": [
        f"clips log-variances to {' and '.join(f'{bound:.0f}' for bound in posteriors.CLIPPED)};"
    ],
    "tracking.md": [f"finishes no call for {tracking.PATIENCE_SECONDS:.0f} seconds"],
    "data.md": [
        f"larger than {MAX_PIXELS / 1e6:.0f} million pixels",
        f"one size of up to {survey.MAX_UNRESIZED_SIDE} pixels keep it",
        f"others become squares of {survey.DEFAULT_SIDE} pixels",
        f"fewer than {checks.FEW_LEVELS} levels to {100 * checks.MOST_PIXELS:.0f} % of the pixels",
    ],
    "troubleshooting.md": [
        f"under {100 * diagnosis.COLLAPSED_SHARE:.0f} % of the latents are active",
        f"below {diagnosis.FEW_IMAGES:,} training images",
    ],
    "evaluation.md": [
        f"more than {100 * diagnosis.MAX_DUPLICATES:.0f} % of held-out images",
        f"within {memorization.DUPLICATE_DISTANCE:.0f} levels",
        f"under {100 * diagnosis.COLLAPSED_SHARE:.0f} % of the latents",
        f"is {diagnosis.NOISE_RATIO} times the reconstruction error",
        f"under {unfinished.MIN_STEPS:,} steps",
        f"under {diagnosis.FEW_IMAGES:,} training images, and a held-out reconstruction error",
        f"a held-out reconstruction error {diagnosis.MEMORIZED_ERROR_RATIO} times",
        f"rose again by {100 * unfinished.RISEN_SHARE:.0f} % of its fall",
    ],
}


@pytest.mark.parametrize("page", FIGURES)
def test_figures_in_the_docs_are_those_of_the_code(page: str) -> None:
    content = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert [text for text in FIGURES[page] if text not in content] == []
