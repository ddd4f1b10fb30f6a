"""Comparison of two sets of images by their features.

Every metric has a 95 % confidence interval, from the delete-a-group jackknife over both sets (Shao & Wu 1989)
with Student's t, for this number of images (the bias of the FID is not in it). By simulation it covers 95 to
100 % for most metrics: for sets that are alike, neighbourhood metrics and the KID are degenerate and their
variance is overestimated (Efron & Stein 1981). It covers 89 to 93 % for precision and density where new
images are narrow and far off, and 91 to 93 % for KID and FID under heavy tails.
"""

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vaekit.evaluation.context import FEATURE_WORK, Advance, EvalContext
from vaekit.evaluation.features import Extractor
from vaekit.evaluation.results import Fidelity, Interval, SetMetrics, SetName
from vaekit.latents.fit_prior import encodings
from vaekit.latents.sampling import AnyPrior, decode_images, draw_latents, to_uint8
from vaekit.runs.image_set import ImageSet

JACKKNIFE_GROUPS = 10
"""Groups of images of which the jackknife leaves out one at a time."""
STUDENT_QUANTILE = 2.262
"""97.5 % quantile of Student's t with JACKKNIFE_GROUPS - 1 degrees of freedom."""
PRECISION_NEIGHBORS = 3
"""The k of precision and recall: a neighbourhood reaches to the k-th neighbour."""
COVERAGE_NEIGHBORS = 5
"""The k of density and coverage."""
SHARES = ("precision", "recall", "coverage")
"""The metrics from 0 to 1."""
NewImages = dict[SetName, UInt8[np.ndarray, "N H W C"]]


def compare(
    real: Float[Tensor, "N F"], other: Float[Tensor, "N F"], rival: Float[Tensor, "N F"] | None = None
) -> SetMetrics:
    """How close the features `other` are to the features `real`; rows of both in random order.

    - precision, recall: shares of `other` inside the neighbourhoods of `real`, and of `real` inside those of
      `other` (Kynkäänniemi et al. 2019, arXiv:1904.06991, equation 2; k = 3);
    - density, coverage: the number of neighbourhoods of `real` that an image of `other` is in, as a multiple
      of what is expected (without an upper end); the share of those that contain one (Naeem et al. 2020,
      arXiv:2002.09797, equations 3 and 5; k = 5);
    - kid: MMD^2 under (a . b / F + 1)^3, unbiased, so that it may be below 0 (Binkowski et al. 2018,
      arXiv:1801.01401, equation 4);
    - fid: between Gaussians of the same means and covariances (Heusel et al. 2017, arXiv:1706.08500,
      equation 6), with a bias that shrinks as N grows.

    With a `rival`, these minus those of `rival` against the same `real`. The intervals are narrower than
    those of the two, since the choice of `real` affects both alike.
    """
    every = torch.arange(len(real))
    subsets = [every, *(every[every % JACKKNIFE_GROUPS != group] for group in range(JACKKNIFE_GROUPS))]
    full, *parts = map(_metrics_of_rows(real, other), subsets)
    zeros = [dict.fromkeys(full, 0.0)] * len(subsets)
    rival_full, *rival_parts = zeros if rival is None else map(_metrics_of_rows(real, rival), subsets)
    intervals: dict[str, Interval] = {}
    for name in full:
        value = full[name] - rival_full[name]
        values = [part[name] - other_part[name] for part, other_part in zip(parts, rival_parts, strict=True)]
        left = torch.tensor(values, dtype=torch.float64)
        squares = (left - left.mean()).square().sum().item()
        margin = STUDENT_QUANTILE * math.sqrt((JACKKNIFE_GROUPS - 1) / JACKKNIFE_GROUPS * squares)
        compared = {full[name]} if rival is None else {full[name], rival_full[name]}
        if name in SHARES and compared in ({0.0}, {1.0}):
            # leaving images out changes nothing: the exact binomial interval (Clopper & Pearson 1934)
            margin = max(margin, 1 - math.pow(0.025, 1 / len(real)))
        bounded = rival is None and name != "kid"  # whose estimate may be below 0
        low, high = 0 if bounded else -math.inf, 1 if bounded and name in SHARES else math.inf
        intervals[name] = Interval(value=value, low=max(low, value - margin), high=min(high, value + margin))
    return SetMetrics(**intervals)


def _metrics_of_rows(
    real: Float[Tensor, "N F"], other: Float[Tensor, "N F"]
) -> Callable[[Tensor], dict[str, float]]:
    """A function from rows of both sets to their metrics; distances and kernels are computed once."""
    real, other = real.double(), other.double()
    distances = torch.cdist(real, real), torch.cdist(real, other), torch.cdist(other, other)
    kernels = _kernel(real, real), _kernel(real, other), _kernel(other, other)

    def metrics(rows: Tensor) -> dict[str, float]:
        return {
            **_neighbourhoods(*(square[rows][:, rows] for square in distances)),
            "kid": _kid(*(square[rows][:, rows] for square in kernels)),
            "fid": _fid(real[rows], other[rows]),
        }

    return metrics


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _neighbourhoods(
    within_real: Float[Tensor, "N N"], between: Float[Tensor, "N N"], within_other: Float[Tensor, "N N"]
) -> dict[str, float]:
    """`between` is [real, other]. The first neighbour of an image is itself."""
    real_radii = within_real.kthvalue(PRECISION_NEIGHBORS + 1).values[:, None]
    other_radii = within_other.kthvalue(PRECISION_NEIGHBORS + 1).values
    wide = within_real.kthvalue(COVERAGE_NEIGHBORS + 1).values[:, None]
    return {
        "precision": (between <= real_radii).any(0).double().mean().item(),
        "recall": (between <= other_radii).any(1).double().mean().item(),
        "density": (between < wide).double().sum(0).mean().item() / COVERAGE_NEIGHBORS,
        "coverage": (between < wide).any(1).double().mean().item(),
    }


def _kid(within_real: Tensor, between: Tensor, within_other: Tensor) -> float:
    def mean_off_diagonal(square: Tensor) -> Tensor:
        return (square.sum() - square.trace()) / (len(square) * (len(square) - 1))

    return (mean_off_diagonal(within_real) + mean_off_diagonal(within_other) - 2 * between.mean()).item()


def _fid(real: Float[Tensor, "N F"], other: Float[Tensor, "N F"]) -> float:
    """The Frechet distance between Gaussians.

    tr (S T)^1/2 is the sum of the singular values of A B^T, where S = A^T A and T = B^T B. That avoids the
    root of S T, which is singular where images are fewer than features. A triangle from QR has the same S.
    """
    moved = (real.mean(0) - other.mean(0)).square().sum().item()
    spread = 0.0
    roots = []
    for features in (real, other):
        centred = (features - features.mean(0)) / math.sqrt(len(features) - 1)
        spread += centred.square().sum().item()
        roots.append(torch.linalg.qr(centred, mode="r").R if len(centred) > centred.shape[1] else centred)
    overlap = torch.linalg.svdvals(roots[0] @ roots[1].T).sum().item()
    return float(moved + spread - 2 * overlap)


def new_images(context: EvalContext) -> NewImages:
    """New images, as `generate` draws them (`new`) and, where that is from a fitted prior, from the model's
    own (`model_prior`). A conditional model draws the classes of held-out images."""
    count = context.new_images
    labels = context.held_out.spread(2 * count)[: 2 * count : 2].labels
    if labels is not None:
        labels = labels[torch.arange(count) % len(labels)]
    vae, fitted = context.model.vae, context.model.fitted_prior
    y = None if labels is None else labels.to(context.model.device)
    priors: dict[SetName, AnyPrior] = {"new": fitted, "model_prior": vae} if fitted else {"new": vae}
    latents = {name: draw_latents(prior, count, context.seed, y) for name, prior in priors.items()}
    return {name: to_uint8(decode_images(vae, z, y)).numpy() for name, z in latents.items()}


def evaluate_fidelity(
    context: EvalContext, new: NewImages, extractor: Extractor, advance: Advance
) -> Fidelity:
    """Compare sets of images with half of the held-out ones.

    The sets are new images, the other half, that half through the model, and training images.
    """
    count = context.new_images
    both = context.held_out.spread(2 * count)
    held_out, others = (both[start::2] for start in (0, 1))
    sets = new | {"other_held_out": others.pixels, "reconstructed": _through_model(context, others)}
    if context.training is not None and len(context.training) >= count:
        sets["training"] = context.training.spread(count).pixels
    shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(context.seed % 2**63))

    def features(images: UInt8[np.ndarray, "N H W C"]) -> Tensor:
        return extractor(images, lambda n: advance(n * FEATURE_WORK, "Features"))[shuffle]

    real = features(held_out.pixels)
    seen = {name: features(sets[name]) for name in get_args(SetName) if name in sets}
    return Fidelity(
        images=count,
        extractor=extractor.name,
        resize=extractor.resize,
        standard=extractor.standard,
        sets={name: compare(real, images) for name, images in seen.items()},
        fitted_prior_gain=compare(real, seen["new"], seen["model_prior"]) if "model_prior" in seen else None,
    )


@torch.no_grad()
def _through_model(context: EvalContext, images: ImageSet) -> UInt8[np.ndarray, "N H W C"]:
    """One decoded draw of q(z | x) for each image: new images as they would be under a perfect prior."""
    vae = context.model.vae
    z = encodings(vae, images.batches(context.model.device), "through", context.seed).z
    return to_uint8(decode_images(vae, z, images.labels)).numpy()
