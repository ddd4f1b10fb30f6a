"""The log-likelihood of images by importance sampling, and the use of the latents.

log p(x) >= E log 1/k sum_s w_s, w_s = p(x | z_s) p(z_s) / q(z_s | x), z_s ~ q(z | x): a bound that rises with
k to log p(x) (Burda et al. 2016, arXiv:1509.00519, theorem 1).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.data.loader import Batch
from vaekit.errors import UserError, setting
from vaekit.evaluation.results import EffectiveSampleSize, LatentUse, Likelihood, LikelihoodKind
from vaekit.latents.sampling import seeded
from vaekit.latents.traverse import posterior_mean
from vaekit.models.registry import Capability
from vaekit.models.terms import Images, Labels
from vaekit.models.vae import VAE
from vaekit.utils.device import matmul_precision

DECODED_PIXELS = {"cpu": 1 << 21, "cuda": 1 << 26, "mps": 1 << 24}
"""Pixels decoded at a time, by device: enough to keep it busy, few enough for its caches."""
MIN_IMAGES_FOR_ACTIVE_UNITS = 20
"""Number of images below which their posterior means do not tell which latents are active."""
ACTIVE_VARIANCE = 0.01
"""Variance of the posterior mean over images above which a latent is active (Burda et al. 2016, section
5.2)."""
CountDraws = Callable[[int], None]
"""Called with the number of draws of z that were decoded: in all `samples` for every image."""


@dataclass(frozen=True)
class ImportanceEstimate:
    """Importance sampling of B images, in nats.

    Weights are summed in 64 bits. Each log p(x | z) is a sum over pixels in 32 bits, with an error of a
    hundredth of a nat at 64x64x3.
    """

    bounds: dict[int, Float[Tensor, " B"]]
    """log 1/k sum w of the first k samples, by k."""
    effective: Float[Tensor, " B"]
    """Effective sample size of all samples: (sum w)^2 / sum w^2, between 1 and k."""
    log_px: Float[Tensor, " B"]
    """log p(x | z), averaged over the samples."""
    kl: Float[Tensor, " B"]
    """log q(z | x) - log p(z), averaged over the samples."""


def require_density(model: VAE) -> None:
    """Raise UserError for a posterior that is a single point, which has no importance weights."""
    if Capability.DENSITY_AT_SAMPLE not in model.posterior.provides:
        raise UserError(
            "This model has no likelihood: its posterior 'delta' is a single point without density.",
            f"Train one with {setting('posterior.kind', 'gaussian')}.",
        )


@matmul_precision()
@torch.no_grad()
def estimate_importance(
    model: VAE, x: Images, y: Labels | None, samples: int, advance: CountDraws = lambda _: None
) -> ImportanceEstimate:
    """Importance weights of `samples` draws of z for every image, as the likelihood observes it."""
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
            advance(count * len(x))
        bounds[stop] = total - math.log(stop)
    return ImportanceEstimate(bounds, (2 * total - squares).exp(), log_px / samples, kl / samples)


def _estimates(
    model: VAE, batches: Iterable[Batch], samples: int, seed: int, advance: CountDraws
) -> Iterator[tuple[Tensor, Labels | None, ImportanceEstimate]]:
    """Images as the likelihood observes them, their classes and estimates; randomness depends on `seed`."""
    for index, (x, y) in enumerate(batches):
        with seeded(seed, "evaluate", index):
            x = model.prepare_target(x)
            estimate = estimate_importance(model, x, y, samples, advance)
        yield x, y, estimate


@torch.no_grad()
def log_likelihoods(
    model: VAE, batches: Iterable[Batch], samples: int, seed: int, advance: CountDraws = lambda _: None
) -> tuple[Float[Tensor, " N"], LikelihoodKind]:
    """The bound of log p(x) by `samples` samples per image, in nats and 64 bits; and the kind of p(x | z)."""
    log_px = [torch.zeros(0, dtype=torch.float64)]
    gray = False
    for x, _, estimate in _estimates(model, batches, samples, seed, advance):
        log_px.append(estimate.bounds[samples].cpu().double())
        gray = gray or _is_gray(x)
    return torch.cat(log_px), _likelihood_kind(model, gray)


def active_units(means: Float[Tensor, "N D"]) -> int | None:
    """Number of latents that depend on the image, from N posterior means; None where N is too small."""
    if len(means) < MIN_IMAGES_FOR_ACTIVE_UNITS:
        return None
    return int((means.var(0, correction=0) > ACTIVE_VARIANCE).sum())


def _is_gray(x: Float[Tensor, "B C H W"]) -> bool:
    """Whether any pixel lies between black and white."""
    return bool(((x > 0) & (x < 1)).any())


def _likelihood_kind(model: VAE, gray: bool) -> LikelihoodKind:
    """The kind of p(x | z): "probability", "density" or, gray under a Bernoulli, "cross-entropy"."""
    kind: LikelihoodKind = model.likelihood.likelihood_kind
    if kind == "probability" and Capability.NORMALIZED not in model.likelihood.provides and gray:
        return "cross-entropy"  # the Bernoulli's: a probability of black and white only
    return kind


@matmul_precision()
@torch.no_grad()
def evaluate_likelihood(
    model: VAE, batches: Iterable[Batch], samples: int, seed: int, advance: CountDraws = lambda _: None
) -> tuple[Likelihood, LatentUse]:
    """The likelihood of images from 0 to 1 by `samples` samples each, and the use of the latents over all."""
    estimates, means, latent_kl = [], [], []
    gray = False
    for x, y, estimate in _estimates(model, batches, samples, seed, advance):
        gray = gray or _is_gray(x)
        estimates.append(estimate)
        means.append(posterior_mean(model, model.posterior_of(x, y)).cpu().double())
        per_latent = model.kl_per_latent(x, y)
        if per_latent is not None:
            latent_kl.append(per_latent.cpu().double())
    bounds = {k: torch.cat([one.bounds[k] for one in estimates]).cpu().double() for k in estimates[0].bounds}
    log_px, kl, effective = (
        torch.cat(column).cpu().double()
        for column in zip(*((one.log_px, one.kl, one.effective) for one in estimates), strict=True)
    )
    nll, count = -bounds[samples], len(log_px)
    normalized = Capability.NORMALIZED in model.likelihood.provides
    likelihood = Likelihood(
        kind=_likelihood_kind(model, gray),
        nll=nll.mean().item(),
        nll_standard_error=(nll.std() / math.sqrt(count)).item() if count > 1 else None,
        bits_per_dimension=nll.mean().item() / math.log(2) / math.prod(model.shape) if normalized else None,
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
