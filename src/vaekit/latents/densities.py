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
from vaekit.models.terms import Labels
from vaekit.utils.cuda_graphs import CudaGraph

MIN_CLASS_ENCODINGS = 50
"""Encodings per Gaussian of a class, at least; with full covariances also twice the number of latents."""
RIDGE = 1e-4
"""Added to every variance of standardized encodings."""
EM_STEPS = 50
"""Maximum steps of expectation maximization, whose later steps gain little."""
FLOW_MAX_LATENTS = 256
FLOW_STEPS = 1000
"""Maximum training steps. More do not help: on Fashion-MNIST -44.64 nats after 2000, -44.47 after 1000."""
FLOW_MAX_EPOCHS = 10
FLOW_BATCH = 256
FLOW_LEARNING_RATE = 2e-3
"""Peak learning rate of Adam; it decays along half a cosine."""
FLOW_EVALUATIONS = 10
"""Evaluations on validation encodings, of which the best state is used."""
FLOW_EVAL_ENCODINGS = 4000
"""Approximate number of validation encodings in an evaluation."""
FLOW_MAX_GRADIENT = 10.0
"""Norm to which gradients are clipped."""


@dataclass(frozen=True)
class Encodings:
    """One draw of q(z | x) for each of N images, and their classes."""

    z: Float[Tensor, "N D"]
    y: Labels
    """Class indices, 0 for all if the images have no classes; or conditions."""

    def without_conditions(self) -> "Encodings":
        """The same with one class, if these have conditions: densities are not fitted to conditions."""
        if not self.y.is_floating_point():
            return self
        return Encodings(self.z, torch.zeros(len(self.z), dtype=torch.long))


def fit_gaussians(train: Encodings, classes: int, components: int, full: bool, seed: int) -> FittedPrior:
    """Fit a mixture of Gaussians to every class, by scikit-learn's expectation maximization.

    Small classes have fewer Gaussians. The smallest have one, with the covariance of all images about the
    means of their classes, widened by the uncertainty of the mean.
    """
    latents = train.z.shape[1]
    prior = _empty_prior("gaussians", train, classes, components=components, full=full)
    density: Any = prior.density
    loc_of_all, scale_of_all = _moments(train.z)
    z = ((train.z - loc_of_all) / scale_of_all).double()
    means = torch.stack([z[train.y == label].mean(0).nan_to_num() for label in range(classes)])
    deviations = z - means[train.y]
    scatter = deviations.T @ deviations if full else deviations.square().sum(0)
    # The mean of each class takes a degree of freedom
    shared = scatter / max(1, len(z) - len(torch.unique(train.y)))
    minimum = max(MIN_CLASS_ENCODINGS, 2 * latents if full else 0)
    for label in range(classes):
        members = z[train.y == label]
        count = min(components, max(1, len(members) // minimum))
        if len(members) < minimum:
            widening = 1 + 1 / max(1, len(members))
            ridge = RIDGE * (torch.eye(latents) if full else 1)
            weights, loc, covariance = torch.ones(1), means[label][None], (widening * shared + ridge)[None]
        else:
            weights, loc, covariance = _expectation_maximization(members, count, full, seed)
        scale = torch.linalg.cholesky(covariance) if full else covariance.sqrt()
        density.logits[label] = -math.inf
        density.logits[label, :count] = weights.log().float()
        density.loc[label, :count] = (loc_of_all + scale_of_all * loc).float()
        density.scale[label, :count] = (scale * (scale_of_all[:, None] if full else scale_of_all)).float()
    return prior


def _expectation_maximization(
    z: Float[Tensor, "N D"], components: int, full: bool, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    kind = "full" if full else "diag"
    mixture = GaussianMixture(
        components, covariance_type=kind, reg_covar=RIDGE, max_iter=EM_STEPS, random_state=seed % 2**32
    )
    # Without warnings of missing convergence; its matrix products are too small for two threads
    with warnings.catch_warnings(action="ignore"), threadpool_limits(1):
        mixture.fit(z.numpy())
    weights, loc, covariance = map(torch.from_numpy, (mixture.weights_, mixture.means_, mixture.covariances_))
    return weights, loc, covariance


def fit_flow(
    train: Encodings, validation: Encodings, classes: int, seed: int, device: torch.device
) -> FittedPrior:
    """Fit a flow of spline couplings by maximum likelihood; its best state on `validation` is used."""
    steps = max(FLOW_EVALUATIONS, min(FLOW_STEPS, FLOW_MAX_EPOCHS * len(train.z) // FLOW_BATCH))
    stride = max(1, len(validation.z) // FLOW_EVAL_ENCODINGS)  # encodings may be sorted by class
    z, y = train.z.to(device), train.y.to(device)
    eval_z, eval_y = validation.z[::stride].to(device), validation.y[::stride].to(device)
    with seeded(seed, "splines"):
        prior = _empty_prior("splines", train, classes).to(device)
        density: Any = prior.density
        loc, scale = _moments(train.z)
        density.loc.copy_(loc)
        density.scale.copy_(scale)
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
            if (number + 1) % (steps // FLOW_EVALUATIONS) == 0:
                with torch.no_grad():
                    score = prior(eval_y).log_prob(eval_z).mean().item()
                if score > best:
                    best, best_state = score, copy.deepcopy(density.state_dict())
        density.load_state_dict(best_state)
    return prior.cpu().requires_grad_(False)


def _moments(z: Float[Tensor, "N D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Mean and standard deviation of every latent."""
    return z.mean(0), z.std(0, correction=0).clamp(min=1e-6)


def _empty_prior(kind: str, train: Encodings, classes: int, **settings: Any) -> FittedPrior:
    latents = train.z.shape[1]
    prior = FittedPrior({"kind": kind, "latents": latents, "classes": classes, "settings": settings})
    counts = torch.bincount(train.y, minlength=classes).float()
    prior.shares.copy_(counts / counts.sum())
    return prior.eval().requires_grad_(False)
