"""All images of a run on maps: coordinates, figures, thumbnails, neighbours, the density of the prior."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from vaekit.errors import UserError
from vaekit.evaluation.memorization import TRAINING_CHUNK, nearest
from vaekit.explorer.jobs import Job
from vaekit.explorer.resolve import Resolver
from vaekit.explorer.tiles import Tiles
from vaekit.latents.image_latents import FIGURES, SPLIT_NAMES, ImageLatents, image_latents
from vaekit.latents.new_latents import new_latents
from vaekit.latents.projection import ROWS, fit_pca, require_tsne, tsne_coordinates
from vaekit.models.flow_matching import FlowMatching
from vaekit.utils.files import printable

Advance = Callable[..., None]
PROJECTIONS = {"pca": "PCA", "tsne": "t-SNE"}
DENSITY_DRAWS = {True: 1024, False: 8192}
"""Draws that show the density of a prior; fewer of flow matching, which are slower."""
DENSITY_CELLS = 96
DENSITY_SMOOTHING = 2.5
"""Standard deviation in cells of the kernel that the draws are smoothed with."""
MIN_TSNE_IMAGES = 10
USUAL_DISTANCE = 0.99
"""Quantile of the distances of images to their neighbours up to which a place is among the images."""
USUAL_DISTANCE_IMAGES = 256


@dataclass(frozen=True, eq=False)
class Column:
    """A figure of every image, to colour the map by."""

    name: str
    values: NDArray[np.float32]
    """[N], numbers, or indices into `categories`; NaN or -1 where it is unknown."""
    categories: tuple[str, ...] = ()
    about: str = ""

    @property
    def summary(self) -> dict[str, Any]:
        known = self.values[np.isfinite(self.values)]
        low, high = np.quantile(known, [0.01, 0.99]).tolist() if len(known) else (0.0, 1.0)
        return {
            "name": self.name,
            "categories": list(self.categories),
            "about": self.about,
            "range": [low, high],
        }

    def text(self, row: int) -> str | float | None:
        """The value of an image, as it is shown; None where it is unknown."""
        value = float(self.values[row])
        if not np.isfinite(value) or (self.categories and value < 0):
            return None
        return self.categories[int(value)] if self.categories else value


class ImageMap:
    """The images of a run on maps, which are computed in the background.

    Args:
        resolver: gets the latents of the images once they are known.
        job: makes the jobs from their texts.
        more_columns: further figures of the images, from their paths.
    """

    def __init__(
        self,
        resolver: Resolver,
        job: Callable[[str], Job],
        more_columns: Callable[[Sequence[str]], Sequence[Column]],
    ) -> None:
        self.resolver, self._more_columns = resolver, more_columns
        self.encoding, self.tsne = job("Encoding images"), job("Computing the t-SNE map")
        self.sampling = job("Sampling the prior")
        self.columns: dict[str, Column] = {}
        self.files: list[str] = []
        self.tiles: dict[str, Tiles] = {}
        self.density: dict[str, Any] | None = None

    # --- Jobs ---

    def encode(self, advance: Advance) -> None:
        """Encode the images, or read what is known of them."""
        resolver = self.resolver
        latents = image_latents(resolver.model, advance)
        files = [printable(path) for path in latents.images.pack.paths()]
        resolver.pca, resolver.latents = fit_pca(latents), latents
        resolver.add_directions()
        self.tiles["pca"] = Tiles(resolver.coordinates("pca"), latents.images.pack.images)
        self.columns = {column.name: column for column in _columns(latents)}
        if (latents.folder / "tsne.npy").exists():
            self.compute_tsne(advance)
            self.tsne.state = "done"
        try:
            # A new dictionary: requests may go through the old one meanwhile
            self.columns = self.columns | {column.name: column for column in self._more_columns(files)}
        finally:  # a table that cannot be used takes no map away
            self.files = files

    def start_tsne(self) -> None:
        """Compute the map by t-SNE, unless that was begun before.

        Raises:
            UserError: openTSNE is not installed, or there are too few images.
        """
        if self.tsne.state not in ("running", "done"):
            require_tsne()
            count = len(self.resolver.images())
            if count < MIN_TSNE_IMAGES:
                raise UserError(f"t-SNE needs at least {MIN_TSNE_IMAGES} images, and there are {count}.")
            self.tsne.start(self.compute_tsne)

    def compute_tsne(self, advance: Advance) -> None:
        """Compute the map by t-SNE, or read it."""
        latents, pca = self.resolver.images(), self.resolver.components()
        coordinates = tsne_coordinates(latents, pca, advance)
        self.tiles["tsne"] = Tiles(coordinates, latents.images.pack.images)
        self.resolver.tsne = coordinates

    def start_density(self) -> None:
        """Sample the prior for its density on the PCA map, unless that was begun before."""
        if self.sampling.state not in ("running", "done"):
            self.resolver.images()
            self.sampling.start(self.compute_density)

    def compute_density(self, advance: Advance) -> None:
        """The density of the prior on the PCA map, from draws."""
        from scipy.ndimage import gaussian_filter

        model, pca = self.resolver.model, self.resolver.components()
        count = DENSITY_DRAWS[isinstance(model.fitted_prior, FlowMatching)]
        advance(0, total=count)
        parts = []
        for z, _ in new_latents(model, count):
            parts.append(pca.project(z.float().cpu().numpy()))
            advance(len(z))
        draws = np.concatenate(parts)
        shown = np.concatenate([draws, self.resolver.coordinates("pca")])
        low, high = np.quantile(shown, [0.001, 0.999], axis=0)
        margin = 0.1 * (high - low) + 1e-9
        low, high = low - margin, high + margin
        edges = [[low[1], high[1]], [low[0], high[0]]]
        counts = np.histogram2d(draws[:, 1], draws[:, 0], bins=DENSITY_CELLS, range=edges)[0]
        smooth = gaussian_filter(counts, DENSITY_SMOOTHING)
        cells = (255 * smooth / max(smooth.max(), 1e-12)).round().astype(np.uint8)
        self.density = {
            "cells": base64.b64encode(cells.tobytes()).decode(),
            "size": DENSITY_CELLS,
            "low": low.tolist(),
            "high": high.tolist(),
        }

    # --- Images ---

    def facts(self, row: int) -> dict[str, Any]:
        """What is known of an image."""
        if not 0 <= row < len(self.files):
            raise UserError(f"There is no image {row}: the run has {len(self.files):,}.")
        values = {column.name: column.text(row) for column in self.columns.values()}
        return {"row": row, "file": self.files[row], **values}

    def originals(self, rows: Sequence[int]) -> UInt8[np.ndarray, "N H W C"]:
        """Images as the model saw them."""
        pixels = self.resolver.images().images.pack.images
        if not all(0 <= row < len(pixels) for row in rows):
            raise UserError(f"Images are numbered from 0 to {len(pixels) - 1:,}.")
        return np.stack([np.asarray(pixels[row]) for row in rows])

    def nearest_training_image(self, picture: UInt8[np.ndarray, "1 H W C"]) -> dict[str, Any]:
        """The training image whose pixels are nearest, and its distance: root mean square, of 255."""
        pack = self.resolver.images().images.pack
        rows = pack.splits["train"]
        starts = range(rows.start, rows.stop, TRAINING_CHUNK)
        parts = (
            _flat(np.array(pack.images[start : min(start + TRAINING_CHUNK, rows.stop)])) for start in starts
        )
        neighbors = nearest(_flat(picture), parts)
        distance = round(float(neighbors.distance[0]), 2)
        return {**self.facts(rows.start + int(neighbors.row[0])), "distance": distance}

    def locate(self, z: Float[np.ndarray, "N D"], projection: str) -> list[list[float]]:
        """Where latents lie on the PCA map; on that by t-SNE, where the image with the nearest ones lies."""
        at = self.resolver.components().project(z)
        if projection == "tsne":
            at = self.resolver.coordinates("tsne")[self._nearest_latents(z)[0]]
        located: list[list[float]] = at.tolist()
        return located

    def outside(self, z: Float[np.ndarray, "N D"]) -> list[bool]:
        """Whether latents are farther from those of all images than 99 % of these are from all others."""
        limit = self.resolver.remember("usual distance", self._usual_distance)
        return [distance > limit for distance in self._nearest_latents(z)[1].tolist()]

    def _usual_distance(self) -> float:
        means = self.resolver.images().means
        rows = np.linspace(0, len(means) - 1, min(len(means), USUAL_DISTANCE_IMAGES)).astype(np.int64)
        return float(np.quantile(self._nearest_latents(means[rows], rows)[1], USUAL_DISTANCE))

    def _nearest_latents(
        self, z: Float[np.ndarray, "N D"], themselves: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The images with the nearest latents, and their distances. Latents that are those of images
        `themselves` are compared with all others."""
        means, squares = self.resolver.images().means, np.square(z).sum(1)
        best, rows = np.full(len(z), np.inf), np.zeros(len(z), np.int64)
        for start in range(0, len(means), ROWS):
            part = np.asarray(means[start : start + ROWS])
            distances = squares[:, None] + np.square(part).sum(1) - 2 * z @ part.T
            if themselves is not None:
                here = np.flatnonzero((themselves >= start) & (themselves < start + len(part)))
                distances[here, themselves[here] - start] = np.inf
            nearer = distances.min(1) < best
            best[nearer] = distances.min(1)[nearer]
            rows[nearer] = start + distances.argmin(1)[nearer]
        return rows, np.sqrt(best.clip(min=0))


def _columns(latents: ImageLatents) -> list[Column]:
    """The class, the figures and the split of every image."""
    pack, columns = latents.images.pack, []
    if pack.classes:
        classes = tuple(printable(name) for name in pack.classes)
        columns.append(Column("class", np.asarray(pack.labels, np.float32), classes))
    columns += [Column(name, values, (), FIGURES[name]) for name, values in latents.figures.items()]
    return [*columns, Column("split", latents.splits.astype(np.float32), SPLIT_NAMES)]


def _flat(pixels: UInt8[np.ndarray, "N H W C"]) -> Float[torch.Tensor, "N P"]:
    return torch.from_numpy(pixels).flatten(1).float() / 255
