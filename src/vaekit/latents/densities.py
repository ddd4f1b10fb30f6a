"""Densities fitted to encodings: mixtures of Gaussians and a spline flow, one for each class."""

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaekit.latents.sampling import seeded
from vaekit.models.fitted_prior import FittedPrior
from vaekit.utils.cuda_graphs import CudaGraph

MIN_CLASS_ENCODINGS = 50
"""A class needs so many encodings for every Gaussian of its own; with full covariance also twice as many as
latents."""
RIDGE = 1e-4
"""Added to every variance, in units of the encodings' own."""
EM_STEPS = 50
"""Steps of expectation maximization, at most: it may continue for long after it has gained what it can."""
FLOW_MAX_LATENTS = 256
"""A flow is fitted for up to so many latents."""
FLOW_STEPS = 1000
"""Training steps of the flow, at most. More make validation encodings of Fashion-MNIST no likelier: -44.64
nats after 2000 steps, -44.47 after 1000."""
FLOW_PASSES = 10
"""Passes of the flow over the encodings, at most."""
FLOW_BATCH = 256
FLOW_LEARNING_RATE = 2e-3
"""Peak learning rate of Adam; it decays along half a cosine."""
FLOW_CHECKS = 10
"""Times that the flow is scored on validation encodings; the best is kept."""
FLOW_CHECKED = 4000
"""Validation encodings that it is scored on, about."""
FLOW_MAX_GRADIENT = 10.0
"""Gradients are clipped to this norm."""


@dataclass(frozen=True)
class Encodings:
    """One draw of q(z | x) for each of N images, and their classes."""

    z: Float[Tensor, "N D"]
    y: Int[Tensor, " N"]
    """Class indices; 0 for all if the images have no classes."""


@dataclass(frozen=True)
class LatentUnits:
    """Mean and standard deviation of every latent, and the share of every class."""

    loc: Float[Tensor, " D"]
    scale: Float[Tensor, " D"]
    shares: Float[Tensor, " Y"]

    @classmethod
    def of(cls, train: Encodings, classes: int) -> "LatentUnits":
        """Measure encodings."""
        scale = train.z.std(0, correction=0).clamp(min=1e-6)
        counts = torch.bincount(train.y, minlength=classes).float()
        return cls(train.z.mean(0), scale, counts / counts.sum())


def fit_gaussians(
    train: Encodings, units: LatentUnits, components: int, full: bool, seed: int
) -> FittedPrior:
    """A mixture of Gaussians for every class, by expectation maximization (scikit-learn's).

    A class of few images has fewer Gaussians. One of too few for a covariance of its own has that of all
    images about the means of their classes, wider by as much as its mean is uncertain.
    """
    latents = train.z.shape[1]
    prior = _empty_prior("gaussians", latents, units, components=components, full=full)
    density: Any = prior.density
    z = ((train.z - units.loc) / units.scale).double()
    means = torch.stack([z[train.y == label].mean(0).nan_to_num() for label in range(len(units.shares))])
    shared = _shared_covariance(z - means[train.y], len(z) - len(train.y.unique()), full)
    least = max(MIN_CLASS_ENCODINGS, 2 * latents if full else 0)
    for label in range(len(units.shares)):
        of_class = z[train.y == label]
        count = min(components, max(1, len(of_class) // least))
        if len(of_class) < least:
            wider = 1 + 1 / max(1, len(of_class))
            ridge = RIDGE * (torch.eye(latents) if full else 1)
            weights, loc, covariance = torch.ones(1), means[label][None], (wider * shared + ridge)[None]
        else:
            weights, loc, covariance = _expectation_maximization(of_class, count, full, seed)
        scale = torch.linalg.cholesky(covariance) if full else covariance.sqrt()
        density.logits[label] = -math.inf
        density.logits[label, :count] = weights.log().float()
        density.loc[label, :count] = (units.loc + units.scale * loc).float()
        density.scale[label, :count] = (scale * (units.scale[:, None] if full else units.scale)).float()
    return prior


def _shared_covariance(deviations: Float[Tensor, "N D"], freedom: int, full: bool) -> Tensor:
    """Covariance about the means of classes, each of which has taken a degree of freedom."""
    return (deviations.T @ deviations if full else deviations.square().sum(0)) / max(1, freedom)


def _expectation_maximization(
    z: Float[Tensor, "N D"], components: int, full: bool, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances of a mixture."""
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    mixture = GaussianMixture(
        components,
        covariance_type="full" if full else "diag",
        reg_covar=RIDGE,
        max_iter=EM_STEPS,
        random_state=seed % 2**32,
    )
    # It warns where it has not converged; and its matrix products are too small for two threads
    with warnings.catch_warnings(action="ignore"), threadpool_limits(1):
        mixture.fit(z.numpy())
    weights, loc, covariance = map(torch.from_numpy, (mixture.weights_, mixture.means_, mixture.covariances_))
    return weights, loc, covariance


def fit_flow(
    train: Encodings, validation: Encodings, units: LatentUnits, seed: int, device: torch.device
) -> FittedPrior:
    """A flow of spline couplings, by maximum likelihood; of its states the one that scores best on
    `validation`."""
    steps = max(FLOW_CHECKS, min(FLOW_STEPS, FLOW_PASSES * len(train.z) // FLOW_BATCH))
    checked = slice(
        None, None, max(1, len(validation.z) // FLOW_CHECKED)
    )  # of all classes, in whose order they come
    z, y, checked_z, checked_y = (
        tensor.to(device) for tensor in (train.z, train.y, validation.z[checked], validation.y[checked])
    )
    with seeded(seed, "splines"):
        prior = _empty_prior("splines", train.z.shape[1], units).to(device)
        density: Any = prior.density
        density.loc.copy_(units.loc)
        density.scale.copy_(units.scale)
        density.requires_grad_(True)
        rate = torch.tensor(FLOW_LEARNING_RATE, device=device)
        optimizer = torch.optim.Adam(
            density.parameters(), rate, betas=(0.9, 0.99), fused=True, capturable=device.type == "cuda"
        )
        drawn = torch.randint(len(z), (steps, FLOW_BATCH)).to(device)

        def train_step(rows: Int[Tensor, " N"]) -> None:
            optimizer.zero_grad()
            (-prior(y[rows]).log_prob(z[rows]).mean()).backward()
            nn.utils.clip_grad_norm_(density.parameters(), FLOW_MAX_GRADIENT)
            optimizer.step()

        step = CudaGraph(train_step)
        best, best_state = -math.inf, copy.deepcopy(density.state_dict())
        for number, rows in enumerate(drawn):
            rate.fill_(FLOW_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * number / steps)))
            step(rows)
            if (number + 1) % (steps // FLOW_CHECKS) == 0:
                with torch.no_grad():
                    score = prior(checked_y).log_prob(checked_z).mean().item()
                if score > best:
                    best, best_state = score, copy.deepcopy(density.state_dict())
        density.load_state_dict(best_state)
    return prior.cpu().requires_grad_(False)


def _empty_prior(kind: str, latents: int, units: LatentUnits, **settings: Any) -> FittedPrior:
    metadata = {"kind": kind, "latents": latents, "classes": len(units.shares), "settings": settings}
    prior = FittedPrior(metadata)
    prior.shares.copy_(units.shares)
    return prior.eval().requires_grad_(False)
