"""Traversals: the effect of each latent on an image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from vaekit.data.packs.pack import Pack
from vaekit.errors import UserError
from vaekit.latents.sampling import CHUNK, decode_images, seeded, to_uint8
from vaekit.models.registry import Capability
from vaekit.models.single_level import rsample_with_log_prob
from vaekit.models.vae import VAE
from vaekit.runs.conditions import average_condition, condition_vectors
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import class_index, class_numbers, training_pack
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.logging import console_logging, log, progress

MEAN_SAMPLES = 1000
"""Draws that estimate the mean of a posterior without a closed form."""
MAX_STATS_IMAGES = 2000
"""Images used for statistics of the latents, at most."""
MIN_VALIDATION_IMAGES = 100
"""With fewer validation images, training images are used as well."""
MIN_CLASS_IMAGES = 20
"""With fewer images of the class, those of all classes are used."""
MAX_DEVIATIONS = 2.5
"""Standard deviations from the mean at either end of a traversal."""
MAX_TRAVERSAL_SIZE = 100
"""Maximum number of rows and of columns."""


def posterior_mean(model: VAE, q: Distribution) -> Float[Tensor, "B D"]:
    """The mean of q(z | x), estimated by sampling if it has no closed form."""
    return q.mean if Capability.MOMENTS in model.posterior.provides else q.sample((MEAN_SAMPLES,)).mean(0)


@torch.no_grad()
def _latent_stats(
    model: LoadedModel, label: int | None, quiet: bool
) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"], Float[Tensor, " D"] | None]:
    """Mean and standard deviation of the aggregate posterior, the average of q(z | x) over training images.

    The third is the standard deviation of the posterior mean over images. If the images are unavailable, it
    is None, and the others are those of a standard normal, with a log message.
    """
    vae = model.vae
    try:
        pack = training_pack(model, quiet)
    except UserError:
        text = "The training images have moved or changed: using a standard normal for means and deviations."
        log.info(text)
        return torch.zeros(vae.latents), torch.ones(vae.latents), None
    images = ImageSet(pack, _stats_rows(pack, label), class_numbers(model, pack)).spread(MAX_STATS_IMAGES)
    means, squares, posterior_means = [], [], []
    with progress(len(images), "Encoding", quiet=quiet) as advance:
        for index, (x, y) in enumerate(images.batches(model.device, CHUNK)):
            with seeded(0, "use", index):
                q = vae.posterior_of(x, y)
                posterior_means.append(posterior_mean(vae, q).double().cpu())
                if Capability.MOMENTS in vae.posterior.provides:
                    mean, variance = q.mean.double().cpu(), q.variance.double().cpu()
                else:  # one draw
                    mean = rsample_with_log_prob(q, 1)[0][0].double().cpu()
                    variance = torch.zeros_like(mean)
            means.append(mean)
            squares.append(variance + mean.square())
            advance(len(x))
    mean, square = torch.cat(means).mean(0), torch.cat(squares).mean(0)
    std = (square - mean.square()).clamp(min=0).sqrt()
    activity = torch.cat(posterior_means).std(0, correction=0)
    return mean.float(), std.float(), activity.float()


def _stats_rows(pack: Pack, label: int | None) -> NDArray[np.int64]:
    """Validation images, with training images if those are few; of one class if it has enough."""
    validation, train = pack.splits["validation"], pack.splits["train"]
    rows = np.arange(validation.start, validation.stop)
    if len(rows) < MIN_VALIDATION_IMAGES:
        rows = np.concatenate([rows, np.arange(train.start, train.stop)])
    if label is not None and np.count_nonzero(pack.labels[rows] == label) >= MIN_CLASS_IMAGES:
        rows = rows[pack.labels[rows] == label]
    return np.sort(rows)


@dataclass(frozen=True, eq=False)
class Traversal:
    """Images in which one latent per row is varied and the others stay at their means."""

    images: UInt8[np.ndarray, "R K H W C"]
    latents: Int64[np.ndarray, " R"]
    """The latent of each row, from 1 as in the columns z1, z2, ... of `TrainedModel.latents`."""
    activity: Float[np.ndarray, " R"]
    """Standard deviation of the latent's posterior mean over images; NaN without the training images."""
    positions: Float[np.ndarray, " K"]
    """Position of each column, in standard deviations of the aggregate posterior from its mean."""

    @property
    def rows(self) -> list[str]:
        suffixes = (f"\nsd {std:.2f}" if np.isfinite(std) else "" for std in self.activity)
        return [f"z{latent}{suffix}" for latent, suffix in zip(self.latents, suffixes, strict=True)]

    @property
    def columns(self) -> list[str]:
        return ["mean" if abs(p) < 1e-6 else f"{p:+.4g}" for p in self.positions.tolist()]

    @property
    def title(self) -> str:
        """Explanation of rows and columns, in two lines."""
        order, unit = "those first that change the image most", "unit steps"
        if np.isfinite(self.activity).all():
            order = "most active first (sd: of its posterior means over images)"
            unit = "standard deviations of the encoded images"
        columns = f"Columns: {unit} from the mean; all other latents stay there"
        return f"Each row varies one latent, {order}\n{columns}"


@torch.no_grad()
def traverse_model(
    model: LoadedModel, rows: int, columns: int, label: Any = None, quiet: bool = False
) -> Traversal:
    """Vary `rows` latents over `columns` steps; see `TrainedModel.traverse`.

    The most active latents come first, or, if activity is unknown, those that change the image most.
    """
    for name, number, minimum in (("rows", rows, 1), ("columns", columns, 2)):
        if not minimum <= number <= MAX_TRAVERSAL_SIZE:
            raise UserError(f"must be from {minimum} to {MAX_TRAVERSAL_SIZE} (got {number}).", option=name)
    vae = model.vae
    if label is not None and not vae.classes:
        raise UserError(f"This model is not conditional and takes no class (got {label!r}).", option="label")
    class_number: int | None = None
    y: Tensor | None = None
    if model.columns:
        y = average_condition(model) if label is None else condition_vectors(model, label, 1)[0]
    elif vae.classes:
        class_number = class_index(0 if label is None else label, model.classes)
        y = torch.tensor(class_number)
    with console_logging(quiet):
        mean, std, activity = _latent_stats(model, class_number, quiet)

    def decode(latent: int, positions: Float[Tensor, " K"]) -> Float[Tensor, "K C H W"]:
        z = mean.repeat(len(positions), 1)
        z[:, latent] += std[latent] * positions
        return decode_images(vae, z, None if y is None else y.expand(len(z), *y.shape))

    importance = activity
    if importance is None:
        ends = torch.tensor([-MAX_DEVIATIONS, MAX_DEVIATIONS])
        pairs = (decode(latent, ends) for latent in range(vae.latents))
        importance = torch.stack([(low - high).square().sum() for low, high in pairs])
    order = importance.argsort(descending=True, stable=True)[:rows].tolist()
    positions = torch.linspace(-MAX_DEVIATIONS, MAX_DEVIATIONS, columns)
    images = np.stack([to_uint8(decode(latent, positions)).numpy() for latent in order])
    activity = torch.full((vae.latents,), torch.nan) if activity is None else activity
    return Traversal(images, np.array(order, np.int64) + 1, activity[order].numpy(), positions.numpy())
