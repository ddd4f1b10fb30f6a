"""Evaluate a trained model: the content of evaluation.json."""

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from PIL import Image

from vaekit.config.config import Config
from vaekit.errors import setting, spelled
from vaekit.evaluation.context import FEATURE_WORK, MIN_NEW_IMAGES, Advance, EvalContext, open_context
from vaekit.evaluation.diagnosis import DiagnosisInput, diagnose
from vaekit.evaluation.features import INSTALL_EFFICIENTNET, Extractor, load_extractor
from vaekit.evaluation.fidelity import NewImages, evaluate_fidelity, new_images
from vaekit.evaluation.likelihood import active_units, evaluate_likelihood
from vaekit.evaluation.memorization import evaluate_memorization
from vaekit.evaluation.reconstruction import reconstruction
from vaekit.evaluation.results import EvaluationResult, Fidelity, Finding, LatentUse, Likelihood, PriorGap
from vaekit.latents.fit_prior import FLOW_MATCHING_ENCODINGS, encodings
from vaekit.latents.sampling import seeded
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.registry import Capability
from vaekit.plots import grids
from vaekit.runs.commands import first_valid, resume_command, train_command
from vaekit.runs.folder import Run
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import read_dataset_summary, read_metadata
from vaekit.runs.metrics import read_metrics
from vaekit.runs.outputs import require_writable
from vaekit.runs.unfinished import unfinished
from vaekit.utils.files import write_text
from vaekit.utils.logging import LONG_PHASE_SECONDS, console_logging, log, progress

MAX_TRAINING_IMAGES = 1000
"""Training images, at most, whose reconstructions are compared with held-out ones."""
QUICK_ENCODINGS = 16
"""Encodings by which flow matching is compared with the model's prior in a quick evaluation."""


def evaluate_model(
    model: LoadedModel, data: Any, samples: int, max_new_images: int, seed: int, quiet: bool
) -> EvaluationResult:
    """Evaluate a model and write evaluation.json: see `TrainedModel.evaluate`."""
    started = time.perf_counter()
    require_writable(model.run)
    context = open_context(model, data, seed, quiet, max_new_images)
    with console_logging(quiet):
        network, note = load_extractor() if len(context.held_out) >= 2 * MIN_NEW_IMAGES else (None, "")
        if note:
            log.info(note)
        work, silence = _work(context, samples, network), LONG_PHASE_SECONDS
        with progress(work, "Likelihood", "samples", quiet=quiet, max_silence=silence) as advance:
            result, nearest_images = evaluate(context, samples, network, advance)
    if nearest_images is None:
        model.run.nearest.unlink(missing_ok=True)
    else:
        grids.write(model.run.nearest, nearest_images)
    result = result.model_copy(update={"seconds": round(time.perf_counter() - started, 1)})
    write_text(model.run.evaluation, result.model_dump_json(indent=2) + "\n")
    return result


def evaluate(
    context: EvalContext, samples: int, extractor: Extractor | None, advance: Advance
) -> tuple[EvaluationResult, Image.Image | None]:
    """Compute all available metrics, and diagnose the model.

    Without an `extractor` of features, sets of images are not compared. If training images are available,
    there is also a picture of the new images nearest to them.
    """
    model, held_out, training = context.model, context.held_out, context.training
    likelihood, latents, no_likelihood = _likelihood(context, samples, advance)
    advance(0, "Reconstructions")
    reconstructed = reconstruction(model.vae, held_out.batches(model.device), not context.quick)
    advance(len(held_out), "Sample quality")
    prior_gap = _prior_gap(context, likelihood)
    new = new_images(context)
    training_reconstructed = memorization = nearest_images = None
    if training is not None:
        some = training.spread(len(held_out) if context.quick else MAX_TRAINING_IMAGES)
        training_reconstructed = reconstruction(model.vae, some.batches(model.device), not context.quick)
        memorization, nearest_images = evaluate_memorization(held_out, training, new["new"], advance)
    fidelity, no_fidelity = _fidelity(context, new, extractor, advance)
    reasons = {"likelihood": no_likelihood, "fidelity": no_fidelity}
    result = EvaluationResult(
        weights_hash=model.weights_hash,
        data=held_out.pack.source,
        split=context.split,
        same_dataset=context.same_dataset,
        images=len(held_out),
        samples=samples,
        seed=context.seed,
        likelihood=likelihood,
        latents=latents,
        reconstruction=reconstructed,
        training_reconstruction=training_reconstructed,
        prior_gap=prior_gap,
        memorization=memorization,
        fidelity=fidelity,
        unavailable={part: spelled(why) for part, why in reasons.items() if why},
    )
    schedule_end = model.objective.schedule_end
    findings = diagnose_run(model.run, model.config, schedule_end, result, len(training or ()))
    return result.model_copy(update={"diagnosis": findings}), nearest_images


def _likelihood(
    context: EvalContext, samples: int, advance: Advance
) -> tuple[Likelihood | None, LatentUse, str]:
    """The likelihood, the use of the latents, and why there is no likelihood where there is none."""
    vae, batches = context.model.vae, context.held_out.batches(context.model.device)
    if Capability.DENSITY_AT_SAMPLE in vae.posterior.provides:
        likelihood, latents = evaluate_likelihood(
            vae, batches, samples, context.seed, lambda count: advance(count, "Likelihood")
        )
        return likelihood, latents, ""
    with torch.no_grad():
        means = torch.cat([vae.posterior_of(x, y).mean.cpu().double() for x, y in batches])
    latents = LatentUse(total=vae.latents, active=active_units(means), kl=None)
    return None, latents, f"the posterior has no density; {setting('posterior.kind', 'gaussian')} has one"


def _fidelity(
    context: EvalContext, new: NewImages, extractor: Extractor | None, advance: Advance
) -> tuple[Fidelity | None, str]:
    """New images compared with held-out ones; or why they are not."""
    if len(context.held_out) < 2 * MIN_NEW_IMAGES:
        needed = f"needs {2 * MIN_NEW_IMAGES} held-out images, has {len(context.held_out)}"
        return None, f"{needed}; give more with {setting('data', 'FOLDER')}"
    if extractor is None:
        return None, f"needs a feature network: {INSTALL_EFFICIENTNET}"
    return evaluate_fidelity(context, new, extractor, advance), ""


@torch.no_grad()
def _prior_gap(context: EvalContext, likelihood: Likelihood | None) -> PriorGap | None:
    """The loss of the model's prior against the fitted one on held-out encodings, in nats per image.

    The ELBO of decoder and fitted prior together is larger than the model's by that.
    """
    vae, fitted, device = context.model.vae, context.model.fitted_prior, context.model.device
    if fitted is None:
        return None
    held_out = context.held_out
    if isinstance(fitted, FlowMatching):  # whose log-densities take long
        held_out = held_out.spread(QUICK_ENCODINGS if context.quick else FLOW_MATCHING_ENCODINGS)
    drawn = encodings(vae, held_out.batches(device), "judged", context.seed)
    z, y = drawn.z.to(device), drawn.y.to(device)
    labels = y if vae.classes else None
    with seeded(context.seed, "divergence"):
        gain = (fitted.log_prior(z, labels) - vae.log_prior(z, labels)).cpu().double()
    mean = gain.mean().item()
    return PriorGap(
        fitted_prior=fitted.name,
        gain=mean,
        gain_standard_error=(gain.std() / math.sqrt(len(gain))).item() if len(gain) > 1 else None,
        mutual_information_bound=None if likelihood is None else likelihood.kl - mean,
        elbo=None if likelihood is None else likelihood.elbo + mean,
        bits_per_dimension=None
        if likelihood is None or likelihood.bits_per_dimension is None
        else -(likelihood.elbo + mean) / math.log(2) / math.prod(vae.shape),
    )


def diagnose_run(
    run: Run, config: Config, schedule_end: float, result: EvaluationResult, training_images: int
) -> list[Finding]:
    """Diagnose a model from its evaluation and its training curves."""
    metadata, dataset, rows = read_metadata(run), read_dataset_summary(run), read_metrics(run)
    losses = [row["val_loss"] for row in rows]

    def retrain_command(*choices: Mapping[str, Any]) -> str:
        return train_command(metadata, dataset, first_valid(config, choices, training_images))

    return diagnose(
        DiagnosisInput(
            config=config,
            result=result,
            history=[row for row in rows if row["epoch"] > schedule_end],
            loss_drop=losses[0] - min(losses) if losses else 0.0,
            unfinished=unfinished(run, config, schedule_end),
            training_images=training_images,
            run=str(run.folder),
            retrain_command=retrain_command,
            resume_command=partial(resume_command, metadata, dataset, run.folder),
        )
    )


def _work(context: EvalContext, samples: int, extractor: Extractor | None) -> int:
    """The total of the progress bar, in decoded draws of z and other work that takes as long."""
    work = len(context.held_out) + len(context.training or ())
    if Capability.DENSITY_AT_SAMPLE in context.model.vae.posterior.provides:
        work += len(context.held_out) * samples
    if extractor is not None:
        sets = 4 + (context.model.fitted_prior is not None) + (context.training is not None)
        work += sets * context.new_images * FEATURE_WORK
    return work
