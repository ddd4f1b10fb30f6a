"""Where images lie in the latent space: posterior means, as an array or a table."""

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
from vaekit.runs.image_set import batches
from vaekit.runs.inputs import all_images, class_numbers
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.outputs import new_file
from vaekit.utils.logging import console_logging, progress

if TYPE_CHECKING:
    import pandas as pd


@torch.no_grad()
def encode_means(
    model: VAE, images: Iterable[Batch], seed: int = 0, advance: Callable[[int], None] = lambda _: None
) -> Float[Tensor, "N D"]:
    """The means of q(z | x). The seed is for likelihoods that observe pixels drawn from an image."""
    found = [torch.zeros(0, model.latents)]
    for index, (x, y) in enumerate(images):
        with seeded(seed, "encode", index):
            found.append(model.posterior_of(x, y).mean.float().cpu())
        advance(len(x))
    return torch.cat(found)


def latents(model: LoadedModel, data: Any, out: Path | None, quiet: bool) -> "pd.DataFrame":
    """The posterior means of every image of a data set as a table, written to `out` too: see `Trained.latents`."""
    import pandas as pd

    if out is not None:
        out = new_file(model.run, out, tables.SUFFIXES, data)
        tables.require_writer(out)
    with console_logging(quiet):
        found = all_images(model, data, quiet)
        numbers = class_numbers(model, found.pack)
        with progress(len(found.rows), "encoding", quiet=quiet) as advance:
            images = batches(found.pack, found.rows, numbers, CHUNK, model.device)
            z = encode_means(model.vae, images, advance=advance)
    words = {"file": found.paths} | ({"label": found.labels} if found.labels is not None else {})
    numbered = [f"z{latent}" for latent in range(1, z.shape[1] + 1)]
    table = pd.concat([pd.DataFrame(words), pd.DataFrame(z.numpy(), columns=numbered)], axis=1)
    if out is not None:
        tables.write_latents(out, table, model.vae.latent_shape)
    return table
