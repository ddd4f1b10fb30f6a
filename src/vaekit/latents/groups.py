"""Groups of similar latents, within the classes if there are any, that flow matching is conditioned on.

Generative models of unlabelled images gain from labels made by clustering about what they gain from classes
(Hu et al. 2023, arXiv:2210.06462, section 4); where classes are broad, their groups are labels too.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vaekit.models.flow_matching import MAX_GROUPS

IMAGES_PER_GROUP = 60
"""Training images of a group, on average at least: smaller ones would be copied."""
FITTED_IMAGES = 20_000
"""Training images that centres are fitted to, at most, spread over all."""


@dataclass(frozen=True)
class Groups:
    """Centres [G, D] of groups, and the class [G] of each: 0 without classes."""

    centres: Float[Tensor, "G D"]
    classes: Int64[Tensor, " G"]

    def of(self, loc: Float[Tensor, "N D"], y: Int64[Tensor, " N"] | None) -> Int64[Tensor, " N"]:
        """The nearest group of the class of every image, or the first where no training image has it."""
        parts = []
        for first in range(0, len(loc), 1024):
            rows = slice(first, first + 1024)
            distances = torch.cdist(loc[rows], self.centres)
            if y is not None:
                distances = distances.masked_fill(self.classes != y[rows, None], torch.inf)
            parts.append(distances.argmin(1))
        return torch.cat(parts)


def fit_groups(
    loc: Float[Tensor, "N D"], y: Int64[Tensor, " N"] | None, most: int = MAX_GROUPS, seed: int = 0
) -> Groups:
    """K-means of the means of q(z | x) of training images, in every class by its share of `most` groups."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    loc = loc[:: -(-len(loc) // FITTED_IMAGES)]
    y = torch.zeros(len(loc), dtype=torch.long) if y is None else y[:: -(-len(y) // FITTED_IMAGES)]
    centres, classes = [], []
    for number in y.unique().tolist():
        members = loc[y == number]
        count = max(1, min(most * len(members) // len(loc), len(members) // IMAGES_PER_GROUP))
        with threadpool_limits(1):  # sums in another order could move an image to another group on resuming
            fitted = KMeans(count, n_init=1, random_state=seed % 2**32).fit(members.numpy())
        centres.append(torch.from_numpy(fitted.cluster_centers_).to(loc))
        classes += [number] * count
    return Groups(torch.cat(centres), torch.tensor(classes))
