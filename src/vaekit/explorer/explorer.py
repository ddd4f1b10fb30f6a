"""What the page can ask of a run: maps, figures, pictures, directions, training."""

import base64
import re
import threading
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
from vaekit.explorer.places import OfImage, Place
from vaekit.explorer.recipes import recipe
from vaekit.explorer.resolve import Latents, Resolver
from vaekit.explorer.tiles import Tiles
from vaekit.latents.image_latents import FIGURES, SPLIT_NAMES, figures_of, image_latents
from vaekit.latents.new_latents import new_latents
from vaekit.latents.projection import fit_pca, require_tsne, tsne_coordinates
from vaekit.latents.sampling import CHUNK
from vaekit.models.flow_matching import FlowMatching
from vaekit.runs.image_set import to_tensor
from vaekit.runs.inputs import read_file_bytes
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metrics import read_metrics
from vaekit.utils.files import printable

MAX_UPLOADS = 32
MAX_PLACES = 256
"""Places in a request."""
ACTIVE_KL = 0.01
"""KL in nats above which a latent is used, on average over images."""
SLIDERS = 24
"""Directions that have a slider, at most."""
DENSITY_DRAWS = {True: 1024, False: 8192}
"""Draws that show the density of a prior; fewer of flow matching."""
DENSITY_CELLS = 96
MIN_TSNE_IMAGES = 10
PROJECTIONS = {"pca": "PCA", "tsne": "t-SNE"}


@dataclass(frozen=True, eq=False)
class Column:
    """A figure of every image, to colour the map by."""

    name: str
    values: NDArray[np.float32]
    """[N], numbers, or indices into `categories`."""
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


class Explorer:
    """A run as the page explores it. Methods that compute hold `compute`, one at a time.

    Args:
        model: the model of the run.
        columns: further figures of the images by name, functions of their paths.
    """

    def __init__(
        self, model: LoadedModel, columns: Callable[[Sequence[str]], Sequence[Column]] = lambda _: ()
    ) -> None:
        self.model, self.resolver = model, Resolver(model)
        self.compute = threading.Lock()
        self.encoding = Job("Encoding images", self.compute)
        self.tsne = Job("Computing the t-SNE map", self.compute)
        self.density_job = Job("Sampling the prior", self.compute)
        self.columns: dict[str, Column] = {}
        self.files: list[str] = []
        self.tiles: dict[str, Tiles] = {}
        self.density: dict[str, Any] | None = None
        self._more_columns = columns

    # --- The map ---

    def start(self) -> None:
        """Encode the images in the background, unless that was done before."""
        self.encoding.start(self._encode)

    def _encode(self, advance: Callable[..., None]) -> None:
        latents = image_latents(self.model, advance)
        pca = fit_pca(latents)
        pack = latents.images.pack
        files = [printable(path) for path in pack.paths()]
        columns = []
        if pack.classes:
            classes = tuple(printable(name) for name in pack.classes)
            columns.append(Column("class", np.asarray(pack.labels, np.float32), classes))
        columns += [Column(name, values, (), FIGURES[name]) for name, values in latents.figures.items()]
        columns.append(Column("split", latents.splits.astype(np.float32), SPLIT_NAMES))
        columns += self._more_columns(files)
        resolver = self.resolver
        resolver.pca, resolver.latents = pca, latents
        self._add_directions()
        self.tiles["pca"] = Tiles(resolver.coordinates("pca"), latents.images.pack.images)
        self.files, self.columns = files, {column.name: column for column in columns}
        if (latents.folder / "tsne.npy").exists():
            self._compute_tsne(advance)
            self.tsne.state = "done"

    def start_tsne(self) -> None:
        """Compute the map by t-SNE in the background, unless that was begun before."""
        if self.tsne.state in ("running", "done"):
            return
        require_tsne()
        latents = self.resolver.images()
        if len(latents) < MIN_TSNE_IMAGES:
            raise UserError(f"t-SNE needs at least {MIN_TSNE_IMAGES} images, and there are {len(latents)}.")
        self.tsne.start(self._compute_tsne)

    def _compute_tsne(self, advance: Callable[..., None]) -> None:
        resolver = self.resolver
        assert resolver.latents is not None and resolver.pca is not None
        coordinates = tsne_coordinates(resolver.latents, resolver.pca, advance)
        self.tiles["tsne"] = Tiles(coordinates, resolver.latents.images.pack.images)
        resolver.tsne = coordinates

    def start_density(self) -> None:
        """Sample the prior in the background, for its density on the PCA map."""
        if self.density_job.state not in ("running", "done"):
            self.resolver.coordinates("pca")
            self.density_job.start(self._compute_density)

    def _compute_density(self, advance: Callable[..., None]) -> None:
        from scipy.ndimage import gaussian_filter

        pca, coordinates = self.resolver.pca, self.resolver.coordinates("pca")
        assert pca is not None
        count = DENSITY_DRAWS[isinstance(self.model.fitted_prior, FlowMatching)]
        advance(0, total=count)
        parts = []
        for z, _ in new_latents(self.model, count):
            parts.append(pca.project(z.float().cpu().numpy()))
            advance(len(z))
        draws = np.concatenate([*parts])
        both = np.concatenate([draws, coordinates])
        low, high = np.quantile(both, 0.001, axis=0), np.quantile(both, 0.999, axis=0)
        margin = 0.1 * (high - low) + 1e-9
        low, high = low - margin, high + margin
        counts, _, _ = np.histogram2d(
            draws[:, 1], draws[:, 0], bins=DENSITY_CELLS, range=[[low[1], high[1]], [low[0], high[0]]]
        )
        smooth = gaussian_filter(counts, 2.5)
        cells = (255 * smooth / max(smooth.max(), 1e-12)).round().astype(np.uint8)
        text = base64.b64encode(cells.tobytes()).decode()
        self.density = {"cells": text, "size": DENSITY_CELLS, "low": low.tolist(), "high": high.tolist()}

    def image(self, row: int) -> dict[str, Any]:
        """What is known of an image, for the page to show."""
        if not 0 <= row < len(self.files):
            raise UserError(f"There is no image {row}: the run has {len(self.files):,}.")
        facts: dict[str, Any] = {"row": row, "file": self.files[row]}
        for column in self.columns.values():
            value = float(column.values[row])
            if column.categories:
                facts[column.name] = column.categories[int(value)] if value >= 0 else ""
            else:
                facts[column.name] = value if np.isfinite(value) else None
        return facts

    def originals(self, rows: Sequence[int]) -> UInt8[np.ndarray, "N H W C"]:
        """Images of the run as the model saw them."""
        pixels = self.resolver.images().images.pack.images
        if not all(0 <= row < len(pixels) for row in rows):
            raise UserError(f"Images are numbered from 0 to {len(pixels) - 1:,}.")
        return np.stack([np.asarray(pixels[row]) for row in rows])

    # --- Pictures ---

    def pictures(self, places: Sequence[Place]) -> UInt8[np.ndarray, "N H W C"]:
        """The decoded pictures of places."""
        with self.compute:
            return self.resolver.pictures(places)

    def recipe(self, place: Place) -> str:
        """Commands or lines of Python that make the picture of a place."""
        with self.compute:
            file = self.files[place.row] if isinstance(place, OfImage) else None
            return recipe(self.model, place, self.resolver.resolve(place), file)

    def coordinates_of(self, places: Sequence[Place], projection: str) -> list[list[float]]:
        """Where places lie on the PCA map; on a map by t-SNE, where the nearest image lies."""
        with self.compute:
            z = np.stack([self.resolver.resolve(place).z.numpy() for place in places])
            assert self.resolver.pca is not None, "the page asks for this with a map only"
            at: list[list[float]] = self.resolver.pca.project(z).tolist()
            if projection == "tsne":
                coordinates, rows = self.resolver.coordinates("tsne"), self._nearest_latents(z)[0]
                at = coordinates[rows].tolist()
            return at

    def outside(self, places: Sequence[Place]) -> list[bool]:
        """Whether places are farther from all images, in the latents, than 99 % of images are from others."""
        with self.compute:
            z = np.stack([self.resolver.resolve(place).z.numpy() for place in places])
            limit = self._usual_distance()
            return [distance > limit for distance in self._nearest_latents(z)[1].tolist()]

    def _usual_distance(self) -> float:
        latents = self.resolver.images()
        rows = np.linspace(0, len(latents) - 1, min(len(latents), 256)).astype(int)

        def quantile() -> float:
            return float(np.quantile(self._nearest_latents(latents.means[rows], rows)[1], 0.99))

        return float(self.resolver.remember("usual distance", quantile))

    def _nearest_latents(
        self, z: Float[np.ndarray, "N D"], excluded: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The images whose latents are nearest, and their distances; `excluded` has one for each that is not
        taken."""
        means = self.resolver.images().means
        best, rows = np.full(len(z), np.inf), np.zeros(len(z), np.int64)
        squares = np.square(z).sum(1)
        for start in range(0, len(means), 8192):
            part = np.asarray(means[start : start + 8192])
            distances = squares[:, None] + np.square(part).sum(1) - 2 * z @ part.T
            if excluded is not None:
                inside = (excluded >= start) & (excluded < start + len(part))
                distances[np.flatnonzero(inside), excluded[inside] - start] = np.inf
            nearer = distances.min(1) < best
            best[nearer] = distances.min(1)[nearer]
            rows[nearer] = start + distances.argmin(1)[nearer]
        return rows, np.sqrt(np.maximum(best, 0))

    def nearest_images(self, place: Place) -> list[dict[str, Any]]:
        """The three training images whose pixels are nearest to the picture of a place."""
        picture = self.pictures([place])
        return self._nearest_pixels(picture)

    def _nearest_pixels(self, picture: UInt8[np.ndarray, "1 H W C"]) -> list[dict[str, Any]]:
        pack = self.resolver.images().images.pack
        rows = pack.splits["train"]
        training = pack.images[rows.start : rows.stop]
        flat = torch.from_numpy(picture.reshape(1, -1)).float() / 255
        with self.compute:
            parts = (
                torch.from_numpy(np.array(training[start : start + TRAINING_CHUNK])).flatten(1).float() / 255
                for start in range(0, len(training), TRAINING_CHUNK)
            )
            found = nearest(flat, parts)
        row = rows.start + int(found.row[0])
        return [{**self.image(row), "distance": round(float(found.distance[0]), 2)}]

    def upload(self, name: str, contents: bytes) -> dict[str, Any]:
        """Encode a picture: where it lies, how wide its posterior is, and how likely it is.

        Raises:
            UserError: it is not an image that the model takes.
        """
        pixels = read_file_bytes(self.model, name, contents)
        resolver, latents = self.resolver, self.resolver.images()
        with self.compute:
            x = to_tensor(pixels, self.model.shape).to(self.model.device)
            y = self.model.vae.labels_in_turn(1)
            mean, figures, _ = figures_of(self.model.vae, x, y)
            identifier = f"{len(resolver.uploads) + 1}-{name}"[:40]
            while len(resolver.uploads) >= MAX_UPLOADS:
                resolver.uploads.pop(next(iter(resolver.uploads)))
            resolver.uploads[identifier] = Latents(mean[0].cpu(), None if y is None else y[0])
            q = self.model.vae.posterior_of(x, y)
            spread = _spread(q, resolver.scale)
        facts: dict[str, Any] = {"id": identifier, "posterior standard deviation": spread}
        for figure, values in figures.items():
            value = float(values[0])
            facts[figure] = value
            facts[f"rank by {figure}"] = int((latents.figures[figure] < value).sum()) + 1
        return {**facts, "images": len(latents), "nearest": self._nearest_pixels(pixels)}

    # --- Directions ---

    def sliders(self) -> list[dict[str, Any]]:
        """The directions that have a slider: the most active latents of a vector, or the principal components
        of a latent image."""
        resolver, latents = self.resolver, self.resolver.images()
        assert resolver.pca is not None
        if len(self.model.vae.latent_shape) == 3:
            shares = resolver.pca.variances / max(resolver.pca.total_variance, 1e-12)
            return [
                {"name": f"component {k + 1}", "about": f"{100 * share:.1f} % of variance"}
                for k, share in enumerate(shares[:SLIDERS].tolist())
            ]
        kl = latents.kl
        activity = np.asarray(latents.means[:]).var(0) if kl is None else kl
        order = np.argsort(-activity, kind="stable")[:SLIDERS]
        unit = "variance" if kl is None else "nats"
        return [
            {"name": f"latent {k + 1}", "about": f"{activity[k]:.2f} {unit}"}
            for k in order.tolist()
            if activity[k] > ACTIVE_KL
        ]

    def _add_directions(self) -> None:
        latents, pca = self.resolver.latents, self.resolver.pca
        assert latents is not None and pca is not None
        scale = torch.from_numpy(np.asarray(latents.means).std(0)).float()
        self.resolver.scale = scale
        for k, (component, variance) in enumerate(zip(pca.components, pca.variances, strict=True)):
            step = torch.from_numpy(component * np.sqrt(variance)).float()
            self.resolver.directions[f"component {k + 1}"] = step
        if len(self.model.vae.latent_shape) == 1:
            for k in range(len(scale)):
                step = torch.zeros(len(scale))
                step[k] = scale[k]
                self.resolver.directions[f"latent {k + 1}"] = step

    def direction(self, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> dict[str, Any]:
        """A direction from images of group `a` to those of group `b`; see `directions.separate`."""
        from vaekit.explorer.directions import separate

        latents = self.resolver.images()
        found = separate(np.asarray(latents.means), a, b)
        name = f"direction {sum(key.startswith('direction') for key in self.resolver.directions) + 1}"
        self.resolver.directions[name] = torch.from_numpy(found.step).float()
        return {"name": name, "accuracy": found.accuracy, "a": int(a.sum()), "b": int(b.sum())}

    # --- Training ---

    def training(self) -> dict[str, Any]:
        """The metrics of every epoch by stage, and the names of the pictures of the run."""
        run = self.model.run
        stages = {"autoencoder": run, "flow matching": run.second_stage}
        metrics = {
            name: {key: [row.get(key) for row in rows] for key in rows[0]}
            for name, stage in stages.items()
            if stage.metrics.exists() and (rows := read_metrics(stage))
        }
        return {"metrics": metrics, "pictures": self.picture_names()}

    def picture_names(self) -> list[str]:
        """The pictures of the run that the page may show, such as samples/epoch_0001.png, in order."""
        folders = (self.model.run.folder / name for name in ("samples", "reconstructions"))
        return [
            f"{folder.name}/{file.name}"
            for folder in folders
            if folder.is_dir()
            for file in sorted(folder.iterdir())
            if re.fullmatch(r"[\w-]+\.png", file.name) and file.is_file() and not file.is_symlink()
        ]

    # --- All of it ---

    def info(self) -> dict[str, Any]:
        """The run, its prior and what can be shown by now."""
        model, prior = self.model, self.model.fitted_prior
        channels, height, width = model.shape
        return {
            "run": printable(model.run.folder.resolve().name),
            "shape": [height, width, channels],
            "latent_shape": list(model.vae.latent_shape),
            "classes": [printable(name) for name in model.classes],
            "conditional": bool(model.vae.classes) and not model.columns,
            "chooses_class": (bool(model.vae.classes) and not model.columns)
            or (prior is not None and len(getattr(prior, "shares", ())) > 1),
            "prior": "the model's" if prior is None else prior.name,
            "fitted": prior is not None,
            "guidance": isinstance(prior, FlowMatching) and prior.has_guidance,
            "default_guidance": prior.guidance if isinstance(prior, FlowMatching) else 1,
            "chunk": CHUNK,
            "weights": model.weights_hash[:12],
            "images": len(self.files),
            "projections": {
                name: text for name, text in PROJECTIONS.items() if name in self.tiles and self.files
            },
            "columns": [column.summary for column in self.columns.values()],
            "jobs": [job.status for job in (self.encoding, self.tsne, self.density_job)],
        }


def _spread(q: torch.distributions.Distribution, scale: torch.Tensor | None) -> float | None:
    """The standard deviation of q(z | x) over that of the latents of images, averaged over latents."""
    try:
        deviation = q.stddev[0].cpu()
    except NotImplementedError:
        return None
    used = torch.ones(len(deviation)) if scale is None else scale.clamp(min=1e-6)
    return round(float((deviation / used).mean()), 4)
