"""Directions in the latent space from one group of images to another."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vaekit.errors import UserError

MIN_GROUP = 2
MAX_GROUP = 2000
"""Images of a group that are used, at most: evenly spread."""
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction between two groups."""

    step: Float[np.ndarray, " D"]
    """One standard deviation of all images along it."""
    accuracy: float
    """Share of images that are on the right side, of folds that were held out; both groups count the same."""


def separate(z: Float[np.ndarray, "N D"], a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Direction:
    """The direction of a logistic regression of group `b` against group `a` of images with latents `z`.

    Its accuracy is by cross-validation.

    Raises:
        UserError: a group has fewer than two images, or one is in both.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if min(a.sum(), b.sum()) < MIN_GROUP:
        raise UserError("A direction needs two groups of at least two images.", "Select more images.")
    if (a & b).any():
        raise UserError(f"{(a & b).sum():,} images are in both groups.", "Select groups that do not overlap.")
    groups = [_spread(np.flatnonzero(group)) for group in (a, b)]
    rows = np.concatenate(groups)
    labels = np.repeat([0, 1], [len(group) for group in groups])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
    folds = StratifiedKFold(min(FOLDS, *(len(group) for group in groups)), shuffle=True, random_state=0)
    scores = cross_val_score(model, z[rows], labels, cv=folds, scoring="balanced_accuracy")
    model.fit(z[rows], labels)
    normal = model[-1].coef_[0] / np.maximum(z.std(0), 1e-6)
    # What changes along with the score in the data (Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067,
    # equation 6): the normal itself would leave them where latents are correlated
    pattern = np.cov(z[_spread(np.arange(len(z)))].T, bias=True).reshape(len(normal), -1) @ normal
    step = pattern / max(np.sqrt(normal @ pattern), 1e-12)
    return Direction(step.astype(np.float32), float(scores.mean()))


def _spread(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    count = min(len(rows), MAX_GROUP)
    return rows[np.arange(count) * len(rows) // count]
