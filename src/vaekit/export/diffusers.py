"""An autoencoder for diffusers: a folder that `AutoencoderKL.from_pretrained` reads."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from vaekit.errors import UserError, setting
from vaekit.latents.sampling import CHUNK, seeded
from vaekit.models.networks.autoencoder_kl import KLEncoder
from vaekit.runs.diffusers import CLASS, CONFIG, WEIGHTS, diffusers_names
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import class_numbers, training_pack
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import write_json
from vaekit.runs.outputs import new_folder
from vaekit.utils.logging import console_logging, progress

SLOTS = {
    "encoder": ("autoencoder_kl",),
    "decoder": ("autoencoder_kl",),
    "posterior": ("clipped_gaussian",),
    "likelihood": ("laplace", "gaussian"),
}
"""The kinds that AutoencoderKL has a counterpart of."""


def export_diffusers(model: LoadedModel, out: Path, quiet: bool = False) -> None:
    """Write the autoencoder of a model into a new or empty folder: config.json and safetensors.

    Raises:
        UserError: AutoencoderKL has no such structure, or the training images have moved or changed.
    """
    _require_counterpart(model)
    mean, deviation, overall = latent_moments(model, quiet)
    encoder, network = model.vae.encoder, model.config.encoder.model_dump()
    assert isinstance(encoder, KLEncoder)
    levels = len(encoder.widths)
    record: dict[str, Any] = {
        "_class_name": CLASS,
        "_vaekit_weights": model.weights_hash,
        "act_fn": "silu",
        "block_out_channels": encoder.widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "in_channels": model.shape[0],
        "out_channels": model.shape[0],
        "latent_channels": model.vae.latent_shape[0],
        "latents_mean": mean.tolist(),
        "latents_std": deviation.tolist(),
        "layers_per_block": network["blocks"],
        "mid_block_add_attention": len(encoder.mid_block.attentions) > 0,
        "norm_num_groups": network["groups"],
        "sample_size": max(model.shape[1:]),
        "scaling_factor": 1 / overall,
    }
    weights = {name: t.cpu().contiguous() for name, t in diffusers_names(model.vae.state_dict()).items()}
    folder = new_folder(model.run, out)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, record)


@torch.no_grad()
def latent_moments(model: LoadedModel, quiet: bool) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], float]:
    """Means and standard deviations of latents over the training split, by channel, and the deviation of all.

    There is one draw of q(z | x) for each image; statistics are over images and pixels.
    """
    pack = training_pack(model, quiet)
    rows = pack.splits["train"]
    images = ImageSet(pack, np.arange(rows.start, rows.stop), class_numbers(model, pack))
    channels = model.vae.latent_shape[0]
    total, squares = torch.zeros(2, channels, dtype=torch.float64)
    with (
        console_logging(quiet),
        progress(len(images), "Encoding", quiet=quiet) as advance,
        seeded(model.config.training.seed, "latent moments"),
    ):
        for x, y in images.batches(model.device, CHUNK):
            z = model.vae.posterior_of(x, y).sample().cpu().double().unflatten(1, model.vae.latent_shape)
            total += z.sum((0, 2, 3))
            squares += z.square().sum((0, 2, 3))
            advance(len(x))
    count = len(images) * model.vae.latents // channels
    mean = total / count
    deviation = (squares / count - mean.square()).sqrt()
    overall = (squares.mean() / count - mean.mean().square()).sqrt().item()
    return mean, deviation, overall


def _require_counterpart(model: LoadedModel) -> None:
    """Raise a UserError that names the first component that AutoencoderKL does not have."""
    config = model.config
    for slot, kinds in SLOTS.items():
        if (kind := getattr(config, slot).kind) not in kinds:
            _refuse(f"no counterpart of the {slot} {kind!r}", f"{slot}.kind", kinds[0])
    if len(model.vae.latent_shape) == 1:
        _refuse("no latent vectors", "latents", "auto")
    if model.vae.classes:
        _refuse("no labels", "conditional", False)
    likelihood = config.likelihood.model_dump()
    if likelihood["levels"] != "none":
        _refuse(
            "no sigmoid after the decoder, as a likelihood of 256 levels needs", "likelihood.levels", "none"
        )
    if likelihood["sigma"] == "pixel":
        _refuse("no noise level for every pixel", "likelihood.sigma", "learned")
    for name, value in config.encoder.model_dump().items():
        if value != config.decoder.model_dump()[name]:
            _refuse("one width and depth for encoder and decoder", f"decoder.{name}", value)


def _refuse(lacking: str, name: str, value: object) -> None:
    hint = f"Train with {setting('preset', 'autoencoder-kl')}, or with {setting(name, value)}."
    raise UserError(f"This model cannot be exported: {CLASS} has {lacking}.", hint)
