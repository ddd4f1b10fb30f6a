"""The latents of all images of a run, with figures of each, computed once for its weights."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vaekit.latents.sampling import CHUNK, seeded
from vaekit.latents.traverse import posterior_mean
from vaekit.models.registry import Capability
from vaekit.models.terms import Images, Labels
from vaekit.models.vae import VAE
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import class_numbers, training_pack
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.device import keep_freed_memory
from vaekit.utils.files import atomic_folder

FORMAT = 1
"""Part of the name of the folder, so that those of other versions are not read."""
SPLIT_NAMES = ("train", "validation", "test")
FIGURES = {
    "log-likelihood": "lower bound of log p(x) from one draw of z (ELBO), in nats",
    "KL": "KL of q(z | x) from p(z), in nats",
    "reconstruction error": "root mean square of the differences, in levels of 255",
}
"""Figures of an image, and what they are."""


@dataclass(frozen=True, eq=False)
class ImageLatents:
    """The latents and figures of N images, the rows of a pack."""

    folder: Path
    images: ImageSet
    """All images of the pack, in its order."""
    means: Float[np.ndarray, "N D"]
    """Means of q(z | x), mapped into memory."""
    figures: dict[str, NDArray[np.float32]]
    """By the name in FIGURES: [N]; those that the model does not have are missing."""
    kl: Float[np.ndarray, " D"] | None
    """KL of every latent, averaged over images, in nats; None where it is not a sum over latents."""

    def __len__(self) -> int:
        return len(self.means)

    @property
    def splits(self) -> NDArray[np.int64]:
        """Index into SPLIT_NAMES of every image, [N]."""
        splits = np.zeros(len(self), np.int64)
        for index, name in enumerate(SPLIT_NAMES):
            splits[self.images.pack.splits[name]] = index
        return splits


def image_latents(model: LoadedModel, advance: Callable[..., None] = lambda *_, **__: None) -> ImageLatents:
    """The latents of all images that the run was trained on, read from its folder if they are there.

    They are kept in RUN/explorer under a hash of the weights and of the images.

    Args:
        model: the model.
        advance: called with the number of images after each batch; the first time with `total` and 0.

    Raises:
        UserError: the images have moved or changed.
    """
    pack = training_pack(model, quiet=True)
    images = ImageSet(pack, np.arange(len(pack.images)), class_numbers(model, pack))
    key = hashlib.sha256(f"{FORMAT} {model.weights_hash} {pack.fingerprint}".encode()).hexdigest()[:16]
    folder = model.run.explorer / key
    if not folder.exists():
        with atomic_folder(folder) as temporary, keep_freed_memory():
            _encode_all(model, images, temporary, advance)
    with np.load(folder / "figures.npz") as arrays:
        figures = {name: arrays[name] for name in FIGURES if name in arrays}
        kl = arrays.get("latents")
    return ImageLatents(folder, images, np.load(folder / "means.npy", mmap_mode="r"), figures, kl)


def _encode_all(model: LoadedModel, images: ImageSet, folder: Path, advance: Callable[..., None]) -> None:
    advance(0, total=len(images))
    shape = len(images), model.vae.latents
    means = np.lib.format.open_memmap(folder / "means.npy", "w+", np.float32, shape)
    figures: dict[str, list[Tensor]] = {}
    kl, start = torch.zeros(model.vae.latents, dtype=torch.float64), 0
    for x, y in images.batches(model.device, CHUNK):
        z, values, kl_of_latents = figures_of(model.vae, x, y, start)
        means[start : start + len(x)] = z.cpu().numpy()
        for name, value in values.items():
            figures.setdefault(name, []).append(value.float().cpu())
        kl = kl * torch.nan if kl_of_latents is None else kl + kl_of_latents.double().sum(0).cpu()
        start += len(x)
        advance(len(x))
    means.flush()
    arrays = {name: torch.cat(values).numpy() for name, values in figures.items()}
    if not kl.isnan().any():
        arrays["latents"] = (kl / len(images)).float().numpy()
    np.savez(folder / "figures.npz", **arrays)  # type: ignore[arg-type]


@torch.no_grad()
def figures_of(
    model: VAE, x: Images, y: Labels | None, *key: int
) -> tuple[Float[Tensor, "B D"], dict[str, Float[Tensor, " B"]], Float[Tensor, "B D"] | None]:
    """The means of q(z | x) of images, the figures of FIGURES, and the KL of every latent if there is one;
    draws are seeded by `key`."""
    with seeded(0, "explorer", *key):
        observed = model.prepare_target(x)
        mean = posterior_mean(model, model.posterior_of(x, y))
        shown = model.image(mean, y)
        values = {"reconstruction error": 255 * (shown - x).square().flatten(1).mean(1).sqrt()}
        kl = model.kl_per_latent(observed, y)
        if Capability.DENSITY_AT_SAMPLE in model.posterior.provides:
            z, log_ratio = model.draw_posterior(observed, y)(1)
            log_px = model.decode(z, y if model.classes else None).log_prob(observed)[0]
            values["KL"] = log_ratio[0] if kl is None else kl.sum(1)
            values["log-likelihood"] = log_px - values["KL"]
    return mean.float(), values, kl
