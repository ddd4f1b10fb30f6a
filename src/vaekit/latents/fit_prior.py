"""The sampling prior: a density fitted to the latents of the training images after training.

The decoder is trained on draws of the aggregate posterior q(z), the average of q(z | x) over training images.
Where p(z) has mass and q(z) has none, decoded images are poor (Hoffman & Johnson 2016, "ELBO surgery"). So
densities are fitted to draws of q(z) and chosen on validation images, and new images are drawn from the best
(Dai & Wipf 2019, arXiv:1903.05789, section 4; Ghosh et al. 2020, arXiv:1903.12436, section 4).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.config.config import Config
from vaekit.data.loader import Batch, ImageLoader
from vaekit.latents.densities import FLOW_MAX_LATENTS, Encodings, fit_flow, fit_gaussians
from vaekit.latents.sampling import CHUNK, AnyPrior, seeded
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.single_level import rsample_with_log_prob
from vaekit.models.vae import VAE
from vaekit.runs.checkpoint import load_weights, write_prior
from vaekit.runs.folder import Run
from vaekit.runs.inputs import training_pack
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.outputs import require_writable
from vaekit.utils.device import flush_denormals
from vaekit.utils.logging import console_logging, log, status

MAX_ENCODINGS = 20_000
"""Maximum number of encoded images in each split."""
MAX_ENCODED_NUMBERS = 1 << 25
"""Maximum product of images and latents in each split."""
MIN_VALIDATION_ENCODINGS = 20
COMPONENTS = (1, 3, 10, 30, 100)
"""Numbers of Gaussians, tried in turn until more are worse on validation encodings."""
MIN_ENCODINGS_PER_COMPONENT = 50
FULL_MAX_NUMBERS = 1 << 16
"""Maximum size of all full covariances of a mixture together."""
FULL_MAX_LATENTS = 512
"""Maximum number of latents for a single Gaussian with full covariance."""
FLOW_MATCHING_ENCODINGS = 32
"""Encodings by which flow matching is compared with the best of the others."""
SCORE_BATCH = 1024
"""Encodings whose density is computed at once."""


@dataclass(frozen=True)
class PriorFit:
    """The result of fitting: log-densities are means over validation encodings, in nats per image."""

    prior: FittedPrior | FlowMatching | None
    """None if no candidate is better than the model's own prior."""
    model_prior: float
    """Log-density under the model's own prior."""
    candidates: dict[str, float]
    """Log-density under every candidate, by name."""
    gain: float
    """Log-density of the best candidate minus `model_prior`."""
    gain_standard_error: float
    encodings: int
    held_out: int

    @property
    def record(self) -> dict[str, Any]:
        """The figures, as metadata of the fitted prior."""
        return {
            "encodings": self.encodings,
            "held_out": self.held_out,
            "nats_per_held_out_image": {"the model's own prior": self.model_prior, **self.candidates},
            "gain": self.gain,
            "gain_standard_error": self.gain_standard_error,
        }

    @property
    def sentence(self) -> str:
        if self.held_out < MIN_VALIDATION_ENCODINGS:
            name = "the model's own" if self.prior is None else self.prior.name
            return f"Sampling prior: {name} (too few validation images to compare others: {self.held_out})"
        if not self.candidates:
            return "Sampling prior: the model's own (some latents are not finite)"
        best = max(self.candidates, key=self.candidates.__getitem__)
        gain = f"{self.gain:.1f} +- {self.gain_standard_error:.1f} nats"
        if self.prior is None:
            return f"Sampling prior: the model's own (no fitted prior was better; {best}: {gain})"
        return f"Sampling prior: {best} ({gain} better than the model's own)"


@torch.no_grad()
def encodings(model: VAE, batches: Iterable[Batch], split: str, seed: int) -> Encodings:
    """One draw of q(z | x) for every image, with other noise in every split.

    With the same noise, a density that fits the noise of one split would seem to fit the other.
    """
    z, labels = [], []
    with seeded(seed, "encodings", split):
        for x, y in batches:
            drawn, _ = rsample_with_log_prob(model.posterior_of(x, y), 1)
            z.append(drawn[0].cpu())
            labels.append(torch.zeros(len(x), dtype=torch.long) if y is None else y.cpu())
    return Encodings(torch.cat(z), torch.cat(labels))


def fit_prior(
    model: VAE, loader: ImageLoader, seed: int, flow_matching: FlowMatching | None = None
) -> PriorFit:
    """Fit densities to encodings of the training split and choose by those of the validation split, among
    them and the second stage if there is one."""
    limit = min(MAX_ENCODINGS, max(1, MAX_ENCODED_NUMBERS // model.latents))
    with flush_denormals(), status("Fitting the sampling prior"):
        train = encodings(model, loader.split("train", limit, CHUNK), "train", seed)
        validation = encodings(model, loader.split("validation", limit, CHUNK), "validation", seed)
        return choose_prior(model, train, validation, len(loader.source.classes), seed, flow_matching)


def untrained_flow_matching(config: Config, model: VAE, classes: int, seed: int) -> FlowMatching:
    """The model of the second stage before its training."""
    settings = config.flow_matching
    metadata = {
        "name": "flow matching",
        "kind": "flow_matching",
        "latents": model.latents,
        "classes": max(1, classes),
        "settings": {
            "shape": list(model.latent_shape),
            "channels": settings.channels,
            "blocks": settings.blocks,
            **({"conditions": model.classes} if model.vector else {}),
        },
    }
    with seeded(seed, "flow matching"):
        return FlowMatching(metadata).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def trained_flow_matching(
    run: Run, config: Config, model: VAE, classes: int, weights_hash: str
) -> FlowMatching | None:
    """The second stage of a run as trained on the latents of these weights; None if there is none."""
    second = run.second_stage
    trained = second.weights.exists() and second.encoded_by.exists()
    trained = trained and second.encoded_by.read_text() == weights_hash
    if config.latent_prior != "flow_matching" or not trained:
        return None
    flow_matching = untrained_flow_matching(config, model, classes, 0)
    load_weights(flow_matching, second.weights)
    return flow_matching.to(next(model.parameters()).device).eval().requires_grad_(False)


def refit_prior(model: LoadedModel, quiet: bool = False) -> dict[str, Any]:
    """Fit the sampling prior of a run and write it there; see `TrainedModel.fit_prior`."""
    seed = model.config.training.seed
    loader = ImageLoader(training_pack(model, quiet), model.config.data, CHUNK, seed, model.device)
    with console_logging(quiet):
        require_writable(model.run)
        classes = len(loader.source.classes)
        flow_matching = trained_flow_matching(model.run, model.config, model.vae, classes, model.weights_hash)
        fit = fit_prior(model.vae, loader, seed, flow_matching)
        write_prior(model.run, fit.prior, fit.record, model.weights_hash)
        log.info(fit.sentence)
    return fit.record


def choose_prior(
    model: VAE,
    train: Encodings,
    validation: Encodings,
    classes: int,
    seed: int,
    flow_matching: FlowMatching | None = None,
) -> PriorFit:
    """Fit densities to `train`, one for each of `classes` (0: none), and choose by `validation`.

    Those of a conditional model are scored by log p(z | y), others, and all of a model with conditions, by
    log p(z). The best must beat the
    model's own prior by more than two standard errors. `flow_matching` is chosen if it beats the best of them
    on `FLOW_MATCHING_ENCODINGS` encodings, whose log-densities take long, and where validation encodings are
    too few to compare.
    """
    counts = len(train.z), len(validation.z)
    finite = train.z.isfinite().all() and validation.z.isfinite().all()
    if len(validation.z) < MIN_VALIDATION_ENCODINGS or not finite:
        return PriorFit(flow_matching if finite else None, math.nan, {}, math.nan, math.nan, *counts)
    reference = _log_prior(model, validation, model)
    encoded = train.without_conditions(), validation.without_conditions()
    candidates = _fit_candidates(model, *encoded, classes, seed, flow_matching is None)
    means = {name: score.mean().item() for name, (_, score) in candidates.items()}
    best = max(means, key=lambda name: means[name] if math.isfinite(means[name]) else -math.inf)
    prior, score = candidates[best]
    gain = score - reference
    error = (gain.std() / math.sqrt(len(gain))).item()
    chosen: FittedPrior | FlowMatching | None = None
    if gain.mean().item() > 2 * error:
        chosen = prior.named(best)
    if flow_matching is not None:
        count = min(len(score), FLOW_MATCHING_ENCODINGS)
        rows = torch.arange(count) * len(score) // count
        with status("Measuring flow matching"), seeded(seed, "divergence"):
            scores = _log_prior(flow_matching, Encodings(validation.z[rows], validation.y[rows]), model)
        rival = reference if chosen is None else score
        means[flow_matching.name] = ((scores - rival[rows]).mean() + rival.mean()).item()
        if (scores - rival[rows]).mean() > 0:
            chosen, gain = flow_matching, scores - reference[rows]
            error = (gain.std() / math.sqrt(count)).item()
    return PriorFit(chosen, reference.mean().item(), means, gain.mean().item(), error, *counts)


def _fit_candidates(
    model: VAE, train: Encodings, validation: Encodings, classes: int, seed: int, with_flow: bool
) -> dict[str, tuple[FittedPrior, Float[Tensor, " N"]]]:
    """Mixtures with full and diagonal covariances, until more Gaussians score worse, and perhaps a spline
    flow.

    Each comes with its scores: the log-densities of validation encodings.
    """
    candidates: dict[str, tuple[FittedPrior, Tensor]] = {}
    suffix = " in each class" if classes else ""
    for full in (True, False):
        best = -math.inf
        for components in _component_counts(len(train.z), model.latents, full):
            plural = "s" if components > 1 else ""
            name = f"{components} Gaussian{plural} with {'full' if full else 'diagonal'} covariance{suffix}"
            try:
                with status(f"Fitting the sampling prior: {name}"):
                    prior = fit_gaussians(train, max(1, classes), components, full, seed)
            except (ValueError, RuntimeError):  # a covariance that is numerically singular
                break
            candidates[name] = prior, _log_prior(prior, validation, model)
            mean = candidates[name][1].mean().item()
            if not mean > best:
                break
            best = mean
    if with_flow and model.latents <= FLOW_MAX_LATENTS:
        name = f"neural-spline flow{', given the class' if classes else ''}"
        device = next(model.parameters()).device
        device = device if device.type == "cuda" else torch.device("cpu")
        with status(f"Fitting the sampling prior: {name}"):
            prior = fit_flow(train, validation, max(1, classes), seed, device)
        candidates[name] = prior, _log_prior(prior, validation, model)
    return candidates


def _component_counts(count: int, latents: int, full: bool) -> list[int]:
    if full and latents > FULL_MAX_LATENTS:
        return []
    limit = count // MIN_ENCODINGS_PER_COMPONENT
    if full:
        limit = min(limit, FULL_MAX_NUMBERS // latents**2)
    return [components for components in COMPONENTS if components <= max(1, limit)]


@torch.no_grad()
def _log_prior(prior: AnyPrior, encoded: Encodings, model: VAE) -> Float[Tensor, " N"]:
    """log p(z), or for a conditional model log p(z | y), of encodings, in 64 bits."""
    device = next(prior.parameters(), next(prior.buffers(), encoded.z)).device
    parts = zip(encoded.z.split(SCORE_BATCH), torch.split(encoded.y, SCORE_BATCH), strict=True)
    scores = [prior.log_prior(z.to(device), y.to(device) if model.classes else None) for z, y in parts]
    return torch.cat([score.cpu() for score in scores]).double()
