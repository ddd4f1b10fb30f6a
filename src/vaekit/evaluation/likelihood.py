"""The log-likelihood of images by importance sampling, and what the latents carry.

log p(x) >= E log 1/k sum_s w_s, w_s = p(x | z_s) p(z_s) / q(z_s | x), z_s ~ q(z | x): a bound that rises with k and
meets log p(x) in the limit (Burda et al. 2016, arXiv:1509.00519, theorem 1).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.errors import UserError
from vaekit.evaluation.results import EffectiveSampleSize, LatentUse, Likelihood, LikelihoodKind
from vaekit.latents.sampling import seeded
from vaekit.latents.traverse import posterior_mean
from vaekit.models.registry import provides
from vaekit.models.terms import Labels
from vaekit.models.vae import VAE
from vaekit.utils.device import matmul_precision

DECODED_PIXELS = {"cpu": 1 << 21, "cuda": 1 << 26, "mps": 1 << 24}
"""Pixels decoded at a time: enough to keep a device busy, few enough to stay near it."""


MIN_IMAGES_FOR_ACTIVE_UNITS = 20
"""Images whose posterior means tell which latents are active, at least."""


ACTIVE_VARIANCE = 0.01
"""A latent is active whose posterior mean varies by more than this over images (Burda et al. 2016, section 5.2)."""


@dataclass(frozen=True)
class ImportanceEstimate:
    """Importance sampling of B images, in nats. Weights are added up in 64 bits; each log p(x | z) is a sum
    over pixels in 32, which is a hundredth of a nat off at 64x64x3."""

    bounds: dict[int, Float[Tensor, " B"]]
    """log 1/k sum w by the first k samples, for every k asked for."""
    effective: Float[Tensor, " B"]
    """Effective sample size of all samples: (sum w)^2 / sum w^2, between 1 and k."""
    log_px: Float[Tensor, " B"]
    """log p(x | z), averaged over the samples."""
    kl: Float[Tensor, " B"]
    """log q(z | x) - log p(z), averaged over the samples."""


def require_density(model: VAE) -> None:
    """Refuse a posterior without noise, which has no importance weights.

    Raises:
        UserError: there is no likelihood to be had from this model.
    """
    if "density_at_sample" not in provides(model.posterior):
        raise UserError(
            "This model's posterior 'delta' is a single point without density, so it has no likelihood: "
            "train one with --posterior.kind gaussian."
        )


@matmul_precision()
@torch.no_grad()
def estimate_importance(model: VAE, x: Float[Tensor, "B C H W"], y: Labels | None, samples: int) -> ImportanceEstimate:
    """Importance weights of `samples` draws of z for every image; `x` as the likelihood observes it."""
    draw = model.draw_posterior(x, y)
    at_once = max(1, DECODED_PIXELS[x.device.type] // max(1, x.numel()))
    stops = sorted({10**power for power in range(len(str(samples))) if 10**power < samples} | {samples})
    bounds: dict[int, Tensor] = {}
    precise = torch.float64 if x.device.type != "mps" else torch.float32
    total = squares = torch.full((len(x),), -math.inf, device=x.device, dtype=precise)
    log_px = kl = torch.zeros(len(x), device=x.device, dtype=precise)
    done = 0
    for stop in stops:
        while done < stop:
            count = min(at_once, stop - done)
            z, log_ratio = draw(count)
            log_p_x, log_q_over_p = model.decode(z, y).log_prob(x).to(precise), log_ratio.to(precise)
            log_w = log_p_x - log_q_over_p
            total = torch.logaddexp(total, log_w.logsumexp(0))
            squares = torch.logaddexp(squares, (2 * log_w).logsumexp(0))
            log_px, kl = log_px + log_p_x.sum(0), kl + log_q_over_p.sum(0)
            done += count
        bounds[stop] = total - math.log(stop)
    return ImportanceEstimate(bounds, (2 * total - squares).exp(), log_px / samples, kl / samples)


@torch.no_grad()
def log_likelihoods(
    model: VAE,
    batches: Iterable[tuple[Float[Tensor, "B C H W"], Labels | None]],
    samples: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Float[Tensor, " N"], LikelihoodKind]:
    """The bound of log p(x) by `samples` samples for every image, in nats, in 64 bits; and what p(x | z) is (see
    `evaluate_likelihood`)."""
    require_density(model)
    log_px = [torch.zeros(0, dtype=torch.float64)]
    gray = False
    for index, (x, y) in enumerate(batches):
        with seeded(seed, "evaluate", index):
            x = model.prepare_target(x)
            log_px.append(estimate_importance(model, x, y, samples).bounds[samples].cpu().double())
        gray = gray or is_gray(x)
        advance(len(x))
    return torch.cat(log_px), likelihood_kind(model, gray)


def active_units(means: Float[Tensor, "N D"]) -> int | None:
    """Latents that depend on the image, by the posterior means of N images; None where these are too few to tell."""
    if len(means) < MIN_IMAGES_FOR_ACTIVE_UNITS:
        return None
    return int((means.var(0, correction=0) > ACTIVE_VARIANCE).sum())


def is_gray(x: Float[Tensor, "B C H W"]) -> bool:
    """Whether any pixel lies between black and white."""
    return bool(((x > 0) & (x < 1)).any())


def likelihood_kind(model: VAE, gray: bool) -> LikelihoodKind:
    """What p(x | z) is: "probability", "density" or, of gray pixels under a Bernoulli, "cross-entropy"."""
    kind: LikelihoodKind = model.likelihood.likelihood_kind  # type: ignore[assignment]
    if kind == "probability" and "normalised" not in provides(model.likelihood) and gray:
        return "cross-entropy"  # the Bernoulli's: a probability of black and white only
    return kind


@matmul_precision()
@torch.no_grad()
def evaluate_likelihood(
    model: VAE,
    batches: Iterable[tuple[Float[Tensor, "B C H W"], Labels | None]],
    samples: int,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Likelihood, LatentUse]:
    """The likelihood of a set of images, in batches of a moderate size, and the use of every latent over all of them.

    Returns the content of evaluation.json: nats per image, averaged over images; `nll_standard_error` is that of the
    average over images. A bound by few samples is loose: `effective_sample_size` tells how few of them counted.
    `likelihood_kind` says what p(x | z) is: a probability of levels, a density, or, of gray pixels under a Bernoulli, a
    cross-entropy, which is no likelihood of them at all.
    """
    require_density(model)
    estimates: list[ImportanceEstimate] = []
    gray = False
    means: list[Tensor] = []
    latent_kl: list[Tensor] = []
    for index, (x, y) in enumerate(batches):
        with seeded(seed, "evaluate", index):
            x = model.prepare_target(x)
            gray = gray or is_gray(x)
            estimates.append(estimate_importance(model, x, y, samples))
            q = model.posterior_of(x, y)
            means.append(posterior_mean(model, q).cpu().double())
        per_latent = model.kl_per_latent(x, y)
        latent_kl += [] if per_latent is None else [per_latent.cpu().double()]
        advance(len(x))
    bounds = {k: torch.cat([one.bounds[k] for one in estimates]).cpu().double() for k in estimates[0].bounds}
    log_px, kl, effective = (
        torch.cat([getattr(one, name) for one in estimates]).cpu().double() for name in ("log_px", "kl", "effective")
    )
    nll, count = -bounds[samples], len(log_px)
    normalised = "normalised" in provides(model.likelihood)
    likelihood = Likelihood(
        kind=likelihood_kind(model, gray),
        nll=nll.mean().item(),
        nll_standard_error=(nll.std() / math.sqrt(count)).item() if count > 1 else None,
        bits_per_dimension=nll.mean().item() / math.log(2) / math.prod(model.shape) if normalised else None,
        bounds={k: bound.mean().item() for k, bound in bounds.items()},
        elbo=(log_px - kl).mean().item(),
        reconstruction=-log_px.mean().item(),
        kl=kl.mean().item(),
        effective_sample_size=EffectiveSampleSize(
            mean=effective.mean().item(), median=effective.median().item(), min=effective.min().item()
        ),
    )
    return likelihood, LatentUse(
        total=model.latents,
        active=active_units(torch.cat(means)),
        kl=torch.cat(latent_kl).mean(0).tolist() if latent_kl else None,
    )
