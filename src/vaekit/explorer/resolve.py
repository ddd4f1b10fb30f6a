"""From places to latents and pictures."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from vaekit.errors import UserError
from vaekit.explorer.places import (
    Between,
    Moved,
    Near,
    NewImage,
    OfImage,
    OfUpload,
    OnMap,
    Painted,
    Place,
)
from vaekit.latents.image_latents import ImageLatents
from vaekit.latents.new_latents import Sampling, new_latents
from vaekit.latents.projection import PCA, mean_of_neighbors
from vaekit.latents.sampling import CHUNK, decode_images, interpolate, labels_between, seeded, to_uint8
from vaekit.runs.inputs import class_index
from vaekit.runs.loaded import LoadedModel

REMEMBERED = 512
"""Latents of places and chunks that are kept in memory, at most."""


@dataclass(frozen=True, eq=False)
class Latents:
    """The latents of one place, and its label in a conditional model."""

    z: Float[Tensor, " D"]
    y: Tensor | None = None


@dataclass(eq=False)
class Resolver:
    """Finds the latents of places; on a map, among images and along directions once these are known."""

    model: LoadedModel
    latents: ImageLatents | None = None
    pca: PCA | None = None
    tsne: Float[np.ndarray, "N 2"] | None = None
    uploads: dict[str, Latents] = field(default_factory=dict)
    uploaded: int = 0
    """Uploads so far."""
    directions: dict[str, Float[Tensor, " D"]] = field(default_factory=dict)
    """By name: a step of one standard deviation of the images."""
    made_directions: int = 0
    """Directions so far that were made from groups of images."""
    scale: Float[Tensor, " D"] = field(init=False)
    """Standard deviation of each latent over images; 1 until it is known."""
    _remembered: OrderedDict[Any, Any] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.scale = torch.ones(self.model.vae.latents)

    def pictures(self, places: Sequence[Place]) -> UInt8[np.ndarray, "N H W C"]:
        """The decoded pictures of places."""
        resolved = [self.resolve(place) for place in places]
        z = torch.stack([one.z for one in resolved])
        labels = [one.y for one in resolved if one.y is not None]
        return to_uint8(decode_images(self.model.vae, z, torch.stack(labels) if labels else None)).numpy()

    def resolve(self, place: Place) -> Latents:
        """The latents of a place.

        Raises:
            UserError: it names an image, an upload, a class or a direction that is not there, or the map is
                not computed yet.
        """
        latents: Latents = self.remember(place.model_dump_json(), lambda: self._find(place))
        return latents

    def _find(self, place: Place) -> Latents:
        match place:
            case OnMap():
                return self._on_map(place)
            case OfImage():
                return self._of_image(place)
            case NewImage():
                return self._new_image(place)
            case OfUpload():
                return self._of_upload(place)
            case Near():
                return self._near(place)
            case Moved():
                return self._moved(place)
            case Painted():
                return self._painted(place)
            case Between():
                return self._between(place)

    def _on_map(self, place: OnMap) -> Latents:
        latents, at = self.images(), np.array([place.at])
        coordinates = self.coordinates(place.projection)
        nearest = int(np.square(coordinates - at).sum(1).argmin())
        if place.projection == "pca":
            z = self.components().invert(at)
        else:
            z = mean_of_neighbors(coordinates, latents.means, at)
        y = self._label(place.label) if place.label is not None else self._label_of_image(nearest)
        return Latents(self._tensor(z[0]), y)

    def _of_image(self, place: OfImage) -> Latents:
        latents = self.images()
        if place.row >= len(latents):
            raise UserError(f"There is no image {place.row}: the run has {len(latents):,}.")
        return Latents(self._tensor(latents.means[place.row]), self._label_of_image(place.row))

    def _new_image(self, place: NewImage) -> Latents:
        z, y = self.new_chunk(place)
        index = place.index % CHUNK
        label = None if y is None or not self.model.vae.classes else y[index]
        return Latents(z[index].float().cpu(), label)

    def new_chunk(self, place: NewImage) -> tuple[Tensor, Tensor | None]:
        """The chunk of draws that `place` is in."""
        start = place.index // CHUNK * CHUNK
        sampling: Sampling = {
            "seed": place.seed,
            "temperature": place.temperature,
            "prior": place.prior,
            "steps": place.steps,
            "guidance": place.guidance,
        }

        def draw() -> tuple[Tensor, Tensor | None]:
            return next(new_latents(self.model, start + CHUNK, label=place.label, start=start, **sampling))

        chunk: tuple[Tensor, Tensor | None] = self.remember((start, place.label, *sampling.items()), draw)
        return chunk

    def _of_upload(self, place: OfUpload) -> Latents:
        if place.id not in self.uploads:
            raise UserError("The uploaded picture is no longer in memory.", "Drop it on the page once more.")
        return self.uploads[place.id]

    def _near(self, place: Near) -> Latents:
        base = self.resolve(place.of)
        with seeded(place.seed, "near", place.index):
            step = torch.randn(len(base.z))
        return Latents(base.z + place.distance * self.scale * step, base.y)

    def _moved(self, place: Moved) -> Latents:
        base = self.resolve(place.of)
        z = base.z
        for name, amount in place.steps.items():
            if name not in self.directions:
                raise UserError(f"There is no direction {name!r}.", "Make it from two groups of images.")
            z = z + amount * self.directions[name]
        return Latents(z, base.y)

    def _painted(self, place: Painted) -> Latents:
        base, shape = self.resolve(place.of), self.model.vae.latent_shape
        if len(shape) != 3:
            raise UserError("This model has a vector of latents, and no latent image to paint on.")
        z = base.z.clone().unflatten(0, shape)
        for *cell, value in place.cells:
            if not all(0 <= index < size for index, size in zip(cell, shape, strict=True)):
                raise UserError(f"The cell {cell} is outside the latent image {list(shape)}.")
            z[tuple(cell)] += value
        return Latents(z.flatten(), base.y)

    def _between(self, place: Between) -> Latents:
        pieces = len(place.places) - 1
        piece = min(int(place.at * pieces), pieces - 1)
        a, b = (self.resolve(end) for end in place.places[piece : piece + 2])
        t = round(100 * (place.at * pieces - piece))
        z = interpolate(a.z, b.z, 101, not place.linear)[t]
        y = None if a.y is None or b.y is None else labels_between(a.y if t < 50 else b.y, b.y, 101)[t]
        return Latents(z, y)

    def coordinates(self, projection: str) -> Float[np.ndarray, "N 2"]:
        """The coordinates of all images on a map."""
        latents = self.images()
        if projection == "tsne":
            if self.tsne is None:
                raise UserError("The t-SNE map is not computed yet.", "Wait for it, or use the PCA map.")
            return self.tsne
        project = partial(self.components().project, latents.means)
        coordinates: Float[np.ndarray, "N 2"] = self.remember("coordinates", project)
        return coordinates

    def images(self) -> ImageLatents:
        """The latents of all images, once they are computed."""
        if self.latents is None:
            raise UserError("The images are not encoded yet.", "Wait until the map is shown.")
        return self.latents

    def components(self) -> PCA:
        """The principal components, once they are computed."""
        self.images()
        assert self.pca is not None
        return self.pca

    def add_directions(self) -> None:
        """Add the directions that every run has: principal components, and each latent of a vector."""
        pca, size = self.components(), self.model.vae.latents
        self.scale = torch.from_numpy(np.asarray(self.images().means).std(0)).float()
        steps = pca.components * np.sqrt(pca.variances)[:, None]
        for k, step in enumerate(torch.from_numpy(steps).float()):
            self.directions[f"component {k + 1}"] = step
        if len(self.model.vae.latent_shape) == 1:
            for k in range(size):
                self.directions[f"latent {k + 1}"] = F.one_hot(torch.tensor(k), size) * self.scale[k]

    def _label_of_image(self, row: int) -> Tensor | None:
        indices = self.images().images.class_indices
        return None if indices is None else indices[row].to(self.model.device)

    def _label(self, name: str) -> Tensor | None:
        if not self.model.vae.classes or self.model.columns:
            return None
        return torch.tensor(class_index(name, self.model.classes), device=self.model.device)

    def _tensor(self, z: Any) -> Float[Tensor, " D"]:
        return torch.as_tensor(np.asarray(z), dtype=torch.float32).clone()

    def remember(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returned for `key`, unless that was long ago."""
        if key not in self._remembered:
            self._remembered[key] = make()
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return self._remembered[key]
