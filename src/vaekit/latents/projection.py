"""Maps of latents in the plane: PCA, which has an inverse, and t-SNE, which has none."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vaekit.errors import UserError
from vaekit.latents.image_latents import ImageLatents
from vaekit.utils.files import atomic_file

COMPONENTS = 32
"""Principal components that are computed, at most."""
ROWS = 8192
"""Latents that are read at a time."""
NEIGHBORS = 8
"""Images whose latents make that of a place on a map by t-SNE."""
TSNE_ITERATIONS = {"early exaggeration": 250, "optimization": 500}
TSNE_REPORT = 25
"""Iterations between two reports."""


@dataclass(frozen=True, eq=False)
class PCA:
    """Principal components of the latents of images."""

    mean: Float[np.ndarray, " D"]
    components: Float[np.ndarray, "K D"]
    """Of unit length, the one with the largest variance first; the largest entry of each is positive."""
    variances: Float[np.ndarray, " K"]
    total_variance: float

    def project(self, z: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N 2"]:
        """Coordinates in the plane of the first two components."""
        parts = [
            (z[start : start + ROWS] - self.mean) @ self.components[:2].T for start in range(0, len(z), ROWS)
        ]
        at: Float[np.ndarray, "N 2"] = np.concatenate(parts).astype(np.float32)
        return at

    def invert(self, at: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N D"]:
        """The latents of that plane: `project` gives `at` back."""
        z: Float[np.ndarray, "N D"] = self.mean + at @ self.components[:2]
        return z


def fit_pca(latents: ImageLatents) -> PCA:
    """The principal components, read from the folder of the latents if they are there."""
    path = latents.folder / "pca.npz"
    if not path.exists():
        pca = principal_components(latents.means)
        with atomic_file(path, durable=False) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                mean=pca.mean,
                components=pca.components,
                variances=pca.variances,
                total_variance=pca.total_variance,
            )
    with np.load(path) as arrays:
        return PCA(arrays["mean"], arrays["components"], arrays["variances"], float(arrays["total_variance"]))


def principal_components(z: Float[np.ndarray, "N D"]) -> PCA:
    """Eigenvectors of the covariance matrix, of which at least two (of length zero where D is 1)."""
    count, size = z.shape
    mean = np.zeros(size)
    for start in range(0, count, ROWS):
        mean += np.asarray(z[start : start + ROWS], np.float64).sum(0) / count
    covariance = np.zeros((size, size))
    for start in range(0, count, ROWS):
        part = np.asarray(z[start : start + ROWS], np.float64) - mean
        covariance += part.T @ part / count
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1][:COMPONENTS]
    components = vectors[:, order].T
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    components = components * np.sign(largest)
    variances = values[order].clip(min=0)
    if size == 1:
        components, variances = np.concatenate([components, [[0.0]]]), np.append(variances, 0.0)
    return PCA(mean, components, variances, float(np.trace(covariance)))


def require_tsne() -> None:
    """Raise a UserError if openTSNE is not installed."""
    try:
        import openTSNE  # noqa: F401
    except ImportError:
        hint = "Run `pip install 'vaekit[explore]'`."
        raise UserError("t-SNE needs openTSNE, which is not installed.", hint) from None


def tsne_coordinates(
    latents: ImageLatents, pca: PCA, advance: Callable[..., None] = lambda *_, **__: None
) -> Float[np.ndarray, "N 2"]:
    """Coordinates by t-SNE (van der Maaten & Hinton 2008, JMLR 9; by interpolation, Linderman et al. 2019,
    arXiv:1712.09005) of the first principal components, read from the folder of the latents if they are
    there.

    It starts from the first two components (Kobak & Berens 2019, doi:10.1038/s41467-019-13056-x).

    Args:
        latents: of at least 10 images.
        pca: their principal components.
        advance: called with the number of iterations; the first time with `total` and 0.

    Raises:
        UserError: openTSNE is not installed.
    """
    path = latents.folder / "tsne.npy"
    if not path.exists():
        require_tsne()
        from openTSNE import TSNE

        advance(0, total=sum(TSNE_ITERATIONS.values()))
        scores = np.concatenate(
            [
                (latents.means[start : start + ROWS] - pca.mean) @ pca.components.T
                for start in range(0, len(latents), ROWS)
            ]
        )
        start = scores[:, :2] / max(scores[:, 0].std(), 1e-12) * 1e-4
        early, late = TSNE_ITERATIONS.values()
        embedding = TSNE(
            perplexity=min(30, (len(latents) - 1) / 3),
            initialization=start,
            early_exaggeration_iter=early,
            n_iter=late,
            random_state=0,
            n_jobs=1,
            callbacks=lambda *_: advance(TSNE_REPORT),
            callbacks_every_iters=TSNE_REPORT,
        ).fit(scores)
        with atomic_file(path, durable=False) as temporary, temporary.open("wb") as file:
            np.save(file, np.asarray(embedding, np.float32))
    coordinates: Float[np.ndarray, "N 2"] = np.load(path)
    return coordinates


def mean_of_neighbors(
    coordinates: Float[np.ndarray, "N 2"], z: Float[np.ndarray, "N D"], at: Float[np.ndarray, "M 2"]
) -> Float[np.ndarray, "M D"]:
    """The mean of the latents of the images that are nearest to places on a map."""
    count = min(NEIGHBORS, len(z))
    rows = [
        np.argpartition(np.square(coordinates - place).sum(1), count - 1)[:count]
        if count < len(z)
        else np.arange(count)
        for place in at
    ]
    return np.stack([np.asarray(z[np.sort(nearest)], np.float64).mean(0) for nearest in rows])
