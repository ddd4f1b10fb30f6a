"""Encode data sets: posterior means, as an array or a table."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.data.loader import Batch
from vaekit.latents import tables
from vaekit.latents.sampling import CHUNK, seeded
from vaekit.models.vae import VAE
from vaekit.runs.inputs import all_images
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.outputs import new_file
from vaekit.utils.logging import console_logging, progress

if TYPE_CHECKING:
    import pandas as pd


@torch.no_grad()
def encode_means(
    model: VAE, batches: Iterable[Batch], advance: Callable[[int], None] = lambda _: None
) -> Float[Tensor, "N D"]:
    """Posterior means of all images."""
    means = [torch.zeros(0, model.latents)]
    for index, (x, y) in enumerate(batches):
        with seeded(0, "encode", index):  # for likelihoods that draw binary pixels from an image
            means.append(model.posterior_of(x, y).mean.float().cpu())
        advance(len(x))
    return torch.cat(means)


def latents(model: LoadedModel, data: Any, out: Path | None, quiet: bool) -> "pd.DataFrame":
    """Posterior means of a data set as a table, also written to `out`; see `TrainedModel.latents`."""
    import pandas as pd

    if out is not None:
        out = new_file(model.run, out, tables.SUFFIXES, data)
        tables.require_writer(out)
    with console_logging(quiet):
        images, paths = all_images(model, data, quiet)
        with progress(len(images), "Encoding", quiet=quiet) as advance:
            z = encode_means(model.vae, images.batches(model.device, CHUNK), advance=advance)
    table = pd.DataFrame(z.numpy(), columns=[f"z{latent}" for latent in range(1, z.shape[1] + 1)])
    table.insert(0, "file", paths)
    if images.class_names is not None:
        table.insert(1, "label", images.class_names)
    if out is not None:
        tables.write_latents(out, table, model.vae.latent_shape)
    return table
