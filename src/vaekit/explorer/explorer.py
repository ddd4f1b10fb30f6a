"""What the page can ask of a run."""

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from vaekit.explorer.directions import separate
from vaekit.explorer.image_map import PROJECTIONS, Column, ImageMap
from vaekit.explorer.jobs import Job
from vaekit.explorer.places import OfImage, Place
from vaekit.explorer.recipes import recipe
from vaekit.explorer.resolve import Latents, Resolver
from vaekit.latents.image_latents import figures_of
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.registry import Capability
from vaekit.runs.image_set import to_tensor
from vaekit.runs.inputs import read_file_bytes
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metrics import read_metrics
from vaekit.utils.files import printable

MAX_UPLOADS = 32
"""Uploaded pictures that are kept in memory, at most."""
ACTIVE_KL = 0.01
"""KL in nats above which a latent is used, on average over images."""
SLIDERS = 24
"""Directions that have a slider, at most."""


class Explorer:
    """A run as the page explores it. Methods that compute hold `compute`, one at a time.

    Args:
        model: the model of the run.
        more_columns: further figures of the images, from their paths.
    """

    def __init__(
        self, model: LoadedModel, more_columns: Callable[[Sequence[str]], Sequence[Column]] = lambda _: ()
    ) -> None:
        self.model, self.resolver = model, Resolver(model)
        self.compute = threading.Lock()
        self.map = ImageMap(self.resolver, lambda text: Job(text, self.compute), more_columns)

    def start(self) -> None:
        """Encode the images in the background, unless that was done before."""
        self.map.encoding.start(self.map.encode)

    def info(self) -> dict[str, Any]:
        """The run, its prior and what can be shown by now."""
        model, prior, images = self.model, self.model.fitted_prior, self.map
        channels, height, width = model.shape
        conditional = bool(model.vae.classes) and not model.columns
        by_class = prior is not None and not model.columns and len(prior.shares) > 1
        return {
            "run": printable(model.run.folder.resolve().name),
            "shape": [height, width, channels],
            "latent_shape": list(model.vae.latent_shape),
            "classes": [printable(name) for name in model.classes],
            "chooses_class": conditional or by_class,
            "prior": "the model's" if prior is None else prior.name,
            "fitted": prior is not None,
            "guidance": isinstance(prior, FlowMatching) and prior.has_guidance,
            "default_guidance": prior.guidance if isinstance(prior, FlowMatching) else 1,
            "weights": model.weights_hash[:12],
            "images": len(images.files),
            "projections": {name: text for name, text in PROJECTIONS.items() if name in images.tiles},
            "columns": [column.summary for column in images.columns.values()],
            "jobs": [job.status for job in (images.encoding, images.tsne, images.sampling)],
        }

    # --- Pictures ---

    def pictures(self, places: Sequence[Place]) -> UInt8[np.ndarray, "N H W C"]:
        """The decoded pictures of places."""
        with self.compute:
            return self.resolver.pictures(places)

    def recipe(self, place: Place) -> str:
        """A command or lines of Python that make the picture of a place."""
        with self.compute:
            latents = self.resolver.resolve(place)
        return recipe(
            self.model, place, latents, self.map.files[place.row] if isinstance(place, OfImage) else None
        )

    def nearest(self, place: Place) -> dict[str, Any]:
        """The training image whose pixels are nearest to the picture of a place."""
        with self.compute:
            return self.map.nearest_training_image(self.resolver.pictures([place]))

    def path(self, places: Sequence[Place], projection: str) -> dict[str, Any]:
        """Where places lie on a map, and which of them are away from all images."""
        with self.compute:
            z = np.stack([self.resolver.resolve(place).z.numpy() for place in places])
            return {"at": self.map.locate(z, projection), "outside": self.map.outside(z)}

    def upload(self, name: str, contents: bytes) -> dict[str, Any]:
        """Encode a picture, for a place of its own: how wide its posterior is, how likely it is, and the
        training image that is nearest.

        Raises:
            UserError: it is not an image that the model takes, or the images are not encoded yet.
        """
        pixels = read_file_bytes(self.model, name, contents)
        resolver, latents, vae = self.resolver, self.resolver.images(), self.model.vae
        with self.compute:
            x, y = to_tensor(pixels, self.model.shape).to(self.model.device), vae.labels_in_turn(1)
            mean, figures, _ = figures_of(vae, x, y)
            identifier = f"upload {resolver.uploaded}"
            resolver.uploaded += 1
            resolver.uploads[identifier] = Latents(mean[0].cpu(), None if y is None else y[0])
            while len(resolver.uploads) > MAX_UPLOADS:
                resolver.uploads.pop(next(iter(resolver.uploads)))
            facts: dict[str, Any] = {"id": identifier, "images": len(latents)}
            if Capability.MOMENTS in vae.posterior.provides:
                width = vae.posterior_of(x, y).stddev[0].cpu() / resolver.scale.clamp(min=1e-6)
                facts["posterior width"] = round(float(width.mean()), 4)
            for figure, values in figures.items():
                value = float(values[0])
                facts[figure] = value
                facts[f"rank by {figure}"] = int((latents.figures[figure] < value).sum()) + 1
            return {**facts, "nearest": self.map.nearest_training_image(pixels)}

    # --- Directions ---

    def sliders(self) -> list[dict[str, Any]]:
        """The directions that have a slider: the most active latents of a vector, or the principal components
        of a latent image."""
        latents, pca = self.resolver.images(), self.resolver.components()
        if len(self.model.vae.latent_shape) == 3:
            shares = 100 * pca.variances[:SLIDERS] / max(pca.total_variance, 1e-12)
            return [
                {"name": f"component {k + 1}", "about": f"{share:.1f} % of variance"}
                for k, share in enumerate(shares.tolist())
            ]
        activity = self.resolver.scale.square().numpy() if latents.kl is None else latents.kl
        unit = "variance" if latents.kl is None else "nats"
        return [
            {"name": f"latent {k + 1}", "about": f"{activity[k]:.2f} {unit}"}
            for k in np.argsort(-activity, kind="stable")[:SLIDERS].tolist()
            if activity[k] > ACTIVE_KL
        ]

    def direction(self, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> dict[str, Any]:
        """A new direction from images of group `a` to those of group `b`; see `directions.separate`."""
        with self.compute:
            separated = separate(np.asarray(self.resolver.images().means), a, b)
            name = f"direction {self.resolver.made_directions + 1}"
            self.resolver.made_directions += 1
            self.resolver.directions[name] = torch.from_numpy(separated.step)
        return {"name": name, "accuracy": separated.accuracy}

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
