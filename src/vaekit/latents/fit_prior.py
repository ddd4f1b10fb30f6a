"""A prior fitted, after training, to what the encoder really does.

New images are decoded from draws of p(z), but the decoder has learned on q(z), the mean over the training images of
q(z | x), and the two differ: where p(z) has mass and q(z) has none, no decoder can be good (Hoffman & Johnson 2016,
"ELBO surgery"). So densities are fitted to draws of q(z), the best is chosen on draws of held-out images, and new
images are drawn from it (Dai & Wipf 2019, arXiv:1903.05789, section 4; Ghosh et al. 2020, arXiv:1903.12436, section 4).
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaekit.data.loader import Batch, ImageLoader
from vaekit.latents.sampling import CHUNK, seeded
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.single_level import rsample_with_log_prob
from vaekit.models.vae import VAE
from vaekit.utils.cuda_graphs import CudaGraph
from vaekit.utils.device import flush_denormals
from vaekit.utils.logging import progress

ENCODINGS = 20_000
"""Training images encoded, at most, and held-out ones."""


NUMBERS = 1 << 25
"""Numbers in all encodings, at most: where latents are many, fewer images are encoded."""


STEPS, PASSES, BATCH, RATE = 1000, 10, 256, 2e-3
"""Of the flow: steps, and passes over the encodings, at most; encodings a step; Adam's first rate. More steps make
held-out encodings of Fashion-MNIST no likelier: -44.64 nats after 2000 steps, -44.47 after 1000."""


LOOKED_AT = 4000
"""Held-out encodings, about, by which the best of its looks is chosen."""


FEWEST = 20
"""Held-out images below which nothing can be chosen by them."""


COMPONENTS = (1, 3, 10, 30, 100)
"""Gaussians of a mixture, tried in turn until more of them are worse on held-out encodings."""


FULL, WIDEST, SPLINES = 1 << 16, 512, 256
"""Covariances are fitted in full where a mixture's have up to this many numbers, or where there is one of up to so many
latents; a flow is fitted up to so many."""


PER_COMPONENT = 50
"""Encodings that a Gaussian is fitted to, at least; with full covariance also twice as many as there are latents."""


@dataclass(frozen=True)
class Encodings:
    """One draw of q(z | x) for each of N images, and their classes."""

    z: Float[Tensor, "N D"]
    y: Int[Tensor, " N"]
    """Numbers of the classes; 0 for all where the images have none."""


@dataclass(frozen=True)
class PriorFit:
    """What came of fitting: log-densities are means over held-out encodings, in nats per image."""

    prior: FittedPrior | None
    """None where nothing is better than the model's own prior."""
    own: float
    """Of the model's own prior."""
    candidates: dict[str, float]
    """Of everything that was tried, by name."""
    gain: float
    """What the best is better by than the model's own prior."""
    gain_standard_error: float
    encodings: int
    held_out: int

    @property
    def record(self) -> dict[str, Any]:
        """The figures, for the file's description."""
        return {
            "encodings": self.encodings,
            "held_out": self.held_out,
            "nats_per_held_out_image": {"the model's own prior": self.own, **self.candidates},
            "gain": self.gain,
            "gain_standard_error": self.gain_standard_error,
        }

    @property
    def sentence(self) -> str:
        if self.held_out < FEWEST:
            return f"No prior fitted to the latents: {self.held_out} held-out images are too few to choose one by"
        if not self.candidates:
            return "No prior fitted to the latents: some of them are not finite"
        best = max(self.candidates, key=self.candidates.__getitem__)
        found = f"{self.gain:+.2f} +- {self.gain_standard_error:.2f} nats per held-out image"
        if self.prior is None:
            return f"No prior fitted to the latents: none beats the model's own ({best}: {found})"
        return f"New images are drawn from a prior fitted to the latents: {best}, {found} against the model's own"


@torch.no_grad()
def encodings(model: VAE, batches: Iterable[Batch], split: str, seed: int) -> Encodings:
    """One draw of q(z | x) for every image, with noise that no other side has: else a density that fits the noise of
    one would seem to fit the other."""
    z: list[Tensor] = []
    labels: list[Tensor] = []
    with seeded(seed, "encodings", split):
        for x, y in batches:
            drawn, _ = rsample_with_log_prob(model.posterior_of(x, y), 1)
            z.append(drawn[0].cpu())
            labels.append(torch.zeros(len(x), dtype=torch.long) if y is None else y.cpu())
    return Encodings(torch.cat(z), torch.cat(labels))


def encoded(latents: int) -> int:
    """How many images are worth encoding, and can be kept, where each has so many latents."""
    return min(ENCODINGS, max(1, NUMBERS // latents))


def fit_prior(model: VAE, batches: ImageLoader, seed: int, quiet: bool = False) -> PriorFit:
    """Fit densities to encodings of the training side, choose by those of the validation side; shows progress."""
    limit, classes = encoded(model.latents), len(batches.source.classes)
    with (
        flush_denormals(),
        progress(2 * len(COMPONENTS) + 2, "encoding", unit="steps", quiet=quiet) as advance,
    ):
        train, held_out = (
            encodings(model, batches.split(split, limit, size=CHUNK), split, seed) for split in ("train", "validation")
        )
        return choose_prior(model, train, held_out, classes, seed, lambda name: advance(1, f"fitting {name}"))


def choose_prior(
    model: VAE,
    train: Encodings,
    held_out: Encodings,
    classes: int,
    seed: int,
    advance: Callable[[str], None] = lambda _: None,
) -> PriorFit:
    """Fit densities to `train`, for each of `classes` (0: none); choose by `held_out`.

    A conditional model's are judged by log p(z | y), others by log p(z). `advance` is called before every candidate.
    """
    if len(held_out.z) < FEWEST or not (train.z.isfinite().all() and held_out.z.isfinite().all()):
        return PriorFit(None, math.nan, {}, math.nan, math.nan, len(train.z), len(held_out.z))
    device = next(model.parameters()).device
    own = _own_log_prob(model, held_out)
    priors: dict[str, FittedPrior] = {}
    scores: dict[str, Tensor] = {}

    def judged(name: str, prior: FittedPrior) -> float:
        priors[name] = prior
        with torch.no_grad():
            parts = zip(held_out.z.split(1024), held_out.y.split(1024), strict=True)
            scores[name] = torch.cat([prior.log_prior(z, y if model.classes else None) for z, y in parts]).double()
        return scores[name].mean().item()

    units = _LatentUnits.of(train, max(1, classes))
    each = " in each class" if classes else ""
    for full in (True, False):
        best = -math.inf
        for components in COMPONENTS:
            if components > 1 and components * PER_COMPONENT > len(train.z):
                break
            if full and (components * model.latents**2 > FULL if components > 1 else model.latents > WIDEST):
                break
            kind = "full" if full else "diagonal"
            name = f"{components} Gaussian{'s' * (components > 1)} with {kind} covariance{each}"
            advance(name)
            try:
                found = judged(name, _gaussians(train, units, components, full, seed))
            except (ValueError, RuntimeError):  # a covariance that has no inverse in this arithmetic
                break
            if not found > best:
                break
            best = found
    if model.latents <= SPLINES:
        name = f"neural-spline flow{', given the class' if classes else ''}"
        advance(name)
        priors[name] = _splines(train, held_out, units, seed, device if device.type == "cuda" else torch.device("cpu"))
        judged(name, priors[name])
    means = {name: score.mean().item() for name, score in scores.items()}
    best_name = max(means, key=lambda name: means[name] if math.isfinite(means[name]) else -math.inf)
    gain = scores[best_name] - own
    error = (gain.std() / math.sqrt(len(gain))).item()
    better = gain.mean().item() > 2 * error
    fit = PriorFit(
        priors[best_name] if better else None,
        own.mean().item(),
        means,
        gain.mean().item(),
        error,
        len(train.z),
        len(held_out.z),
    )
    if fit.prior is not None:
        fit.prior.metadata |= {"name": best_name}
    return fit


@torch.no_grad()
def _own_log_prob(model: VAE, of: Encodings) -> Float[Tensor, " N"]:
    device = next(model.parameters()).device
    found = []
    for z, y in zip(of.z.split(1024), of.y.split(1024), strict=True):
        labels = y.to(device) if model.classes else None
        found.append(model.log_prior(z.to(device), labels).cpu())
    return torch.cat(found).double()


@dataclass(frozen=True)
class _LatentUnits:
    """Mean and standard deviation of every latent, and the share of every class."""

    loc: Float[Tensor, " D"]
    scale: Float[Tensor, " D"]
    shares: Float[Tensor, " Y"]

    @classmethod
    def of(cls, train: Encodings, classes: int) -> "_LatentUnits":
        scale = train.z.std(0, correction=0).clamp(min=1e-6)
        counts = torch.bincount(train.y, minlength=classes).float()
        return cls(train.z.mean(0), scale, counts / counts.sum())


def _empty(kind: str, latents: int, units: _LatentUnits, **settings: Any) -> FittedPrior:
    metadata = {"kind": kind, "latents": latents, "classes": len(units.shares), "settings": settings}
    prior = FittedPrior(metadata)
    prior.shares.copy_(units.shares)
    return prior.eval().requires_grad_(False)


def _gaussians(train: Encodings, units: _LatentUnits, components: int, full: bool, seed: int) -> FittedPrior:
    """Expectation maximisation for every class (scikit-learn's). A class of few images has fewer Gaussians; one of too
    few for a covariance of its own has that of all images about the means of their classes, by as much wider as its
    mean is uncertain."""
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    latents = train.z.shape[1]
    prior = _empty("gaussians", latents, units, components=components, full=full)
    density: Any = prior.density
    z = ((train.z - units.loc) / units.scale).double()
    means = torch.stack([z[train.y == label].mean(0).nan_to_num() for label in range(len(units.shares))])
    within = z - means[train.y]
    least = max(PER_COMPONENT, 2 * latents if full else 0)
    freedom = max(1, len(z) - len(train.y.unique()))  # every class's mean has taken one
    shared = (within.T @ within if full else within.square().sum(0)) / freedom
    least_noise = 1e-4 * (torch.eye(latents) if full else 1)
    for label in range(len(units.shares)):
        own = z[train.y == label]
        count = min(components, max(1, len(own) // least))
        if len(own) < least:
            wider = 1 + 1 / max(1, len(own))
            weights, loc, covariance = torch.ones(1), means[label][None], (wider * shared + least_noise)[None]
        else:
            kind = "full" if full else "diag"
            mixture = GaussianMixture(
                count, covariance_type=kind, reg_covar=1e-4, max_iter=50, random_state=seed % 2**32
            )
            # EM may go on for long after it has gained what it can; and its products are too small for two threads.
            with warnings.catch_warnings(action="ignore"), threadpool_limits(1):
                mixture.fit(own.numpy())
            weights, loc, covariance = map(torch.from_numpy, (mixture.weights_, mixture.means_, mixture.covariances_))
        scale = torch.linalg.cholesky(covariance) if full else covariance.sqrt()
        density.logits[label] = -math.inf
        density.logits[label, :count] = weights.log().float()
        density.loc[label, :count] = (units.loc + units.scale * loc).float()
        density.scale[label, :count] = (scale * (units.scale[:, None] if full else units.scale)).float()
    return prior


def _splines(
    train: Encodings, held_out: Encodings, units: _LatentUnits, seed: int, device: torch.device
) -> FittedPrior:
    """Maximum likelihood by Adam, its step falling to zero; the best of ten looks at held-out encodings."""
    count = max(10, min(STEPS, PASSES * len(train.z) // BATCH))
    looked_at = slice(None, None, max(1, len(held_out.z) // LOOKED_AT))  # of all classes, in whose order they come
    z, y, seen_z, seen_y = (
        values.to(device) for values in (train.z, train.y, held_out.z[looked_at], held_out.y[looked_at])
    )
    with seeded(seed, "splines"):
        prior = _empty("splines", train.z.shape[1], units).to(device)
        density: Any = prior.density
        density.loc.copy_(units.loc)
        density.scale.copy_(units.scale)
        steps = density.requires_grad_(True)
        rate = torch.tensor(RATE, device=device)
        optimizer = torch.optim.Adam(
            steps.parameters(), rate, betas=(0.9, 0.99), fused=True, capturable=device.type == "cuda"
        )
        drawn = torch.randint(len(z), (count, BATCH)).to(device)

        def step(rows: Int[Tensor, " N"]) -> None:
            optimizer.zero_grad()
            (-prior(y[rows]).log_prob(z[rows]).mean()).backward()
            nn.utils.clip_grad_norm_(steps.parameters(), 10.0)
            optimizer.step()

        take = CudaGraph(step)
        best, kept = -math.inf, copy.deepcopy(steps.state_dict())
        for number, rows in enumerate(drawn):
            rate.fill_(RATE * 0.5 * (1 + math.cos(math.pi * number / count)))
            take(rows)
            if (number + 1) % (count // 10) == 0:
                with torch.no_grad():
                    found = prior(seen_y).log_prob(seen_z).mean().item()
                if found > best:
                    best, kept = found, copy.deepcopy(steps.state_dict())
        steps.load_state_dict(kept)
    return prior.cpu().requires_grad_(False)
