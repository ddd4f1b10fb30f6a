"""Comparison of two sets of images by their features.

Every metric has a 95 % confidence interval, from the delete-a-group jackknife over both sets (Shao & Wu 1989)
with Student's t, for this number of images (the bias of the FID is not in it). By simulation it covers 95 to
100 % for most metrics: for sets that are alike, neighbourhood metrics and the KID are degenerate and their
variance is overestimated (Efron & Stein 1981). It covers 89 to 93 % for precision and density where new
images are narrow and far off, and 91 to 93 % for KID and FID under heavy tails.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.evaluation.results import Interval, SetMetrics

JACKKNIFE_GROUPS = 10
"""Groups of images of which the jackknife leaves out one at a time."""
STUDENT_QUANTILE = 2.262
"""97.5 % quantile of Student's t with JACKKNIFE_GROUPS - 1 degrees of freedom."""
PRECISION_NEIGHBORS = 3
"""The k of precision and recall: a neighbourhood reaches to the k-th neighbour."""
COVERAGE_NEIGHBORS = 5
"""The k of density and coverage."""
METRIC_RANGES = {
    "precision": (0, 1),
    "recall": (0, 1),
    "coverage": (0, 1),
    "density": (0, math.inf),
    "fid": (0, math.inf),
    "kid": (-math.inf, math.inf),
}
"""Ends of the metrics; an estimate of the KID may be below 0."""


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
        low, high = METRIC_RANGES[name]
        compared = {full[name]} if rival is None else {full[name], rival_full[name]}
        if (low, high) == (0, 1) and compared in ({0.0}, {1.0}):
            # leaving images out changes nothing: the exact binomial interval (Clopper & Pearson 1934)
            margin = max(margin, 1 - math.pow(0.025, 1 / len(real)))
        if rival is not None:
            low, high = -math.inf, math.inf
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
