"""A folder of diffusers' AutoencoderKL as a run to start from: its settings and the names of its weights."""

import json
from pathlib import Path
from typing import Any

import torch

from vaekit.config.overrides import resolve
from vaekit.errors import UserError
from vaekit.models.networks.autoencoder_kl import block_widths
from vaekit.runs.checkpoint import Tensors, read_weights
from vaekit.runs.metadata import RunMetadata
from vaekit.version import VERSION

CLASS = "AutoencoderKL"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
PRESET = "autoencoder-kl"
"""The preset of a run that starts from such a folder."""
NAMES = {"posterior.head.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
"""Beginnings of names in vaekit, and in diffusers; others are the same."""
FORMER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Layers of attention, as older folders name them."""
LOWEST_SIZE = 8
"""Pixels on a side of the nominal latent image; that of a run follows from its images."""


def is_diffusers_folder(folder: Path) -> bool:
    """Whether a folder has a config.json that names a class of diffusers."""
    try:
        record = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "_class_name" in record


def diffusers_names(weights: Tensors) -> Tensors:
    """Weights of vaekit by diffusers' names, those of encoder, decoder and posterior."""
    return {
        _renamed(name, NAMES): tensor
        for name, tensor in weights.items()
        if name.startswith(("encoder.", "decoder.", "posterior."))
    }


def read_autoencoder(folder: Path) -> tuple[RunMetadata, Tensors]:
    """The settings and weights of a diffusers folder, as those of a run. No code is executed.

    Raises:
        UserError: another class, a structure that vaekit does not have, or no safetensors.
    """
    path = folder / CONFIG
    record: dict[str, Any] = json.loads(path.read_bytes())
    if record["_class_name"] != CLASS:
        raise UserError(f"{folder} has a model of class {record['_class_name']}, not {CLASS}.")
    try:
        metadata = _metadata(record)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        reason = text.splitlines()[0].rstrip(".")
        raise UserError(f"The structure of {path} is not one of vaekit ({reason}).") from None
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no {WEIGHTS}.", "Save it with `save_pretrained`, as safetensors.")
    weights = {_vaekit_name(name): t.float() for name, t in read_weights(folder / WEIGHTS).items()}
    latents = int(record["latent_channels"])
    for name, size in (("posterior.head", 2 * latents), ("decoder.post_quant_conv", latents)):
        if f"{name}.weight" not in weights:  # which later models leave out
            weights[f"{name}.weight"] = torch.eye(size)[:, :, None, None]
            weights[f"{name}.bias"] = torch.zeros(size)
    for name, tensor in weights.items():
        if "attentions" in name and tensor.ndim == 4:  # older folders have 1x1 convolutions
            weights[name] = tensor[:, :, 0, 0]
    return metadata, weights


def _metadata(record: dict[str, Any]) -> RunMetadata:
    widths, levels = list(record["block_out_channels"]), len(record["block_out_channels"])
    factor = 2 ** (levels - 1)
    kinds = [*record["down_block_types"], *record["up_block_types"]]
    expected: dict[str, tuple[Any, Any]] = {
        "block_out_channels": (widths, block_widths(widths[0], factor)),
        "down_block_types and up_block_types": (
            kinds,
            ["DownEncoderBlock2D"] * levels + ["UpDecoderBlock2D"] * levels,
        ),
        "act_fn": (record.get("act_fn", "silu"), "silu"),
        "out_channels": (record["out_channels"], record["in_channels"]),
    }
    for name, (value, needed) in expected.items():
        if value != needed:
            raise UserError(f"{name} is {value}, not {needed}.")
    network = {
        "kind": "autoencoder_kl",
        "channels": widths[0],
        "blocks": record["layers_per_block"],
        "groups": record["norm_num_groups"],
        "attention": record.get("mid_block_add_attention", True),
    }
    latents = f"{record['latent_channels']}x{LOWEST_SIZE}x{LOWEST_SIZE}"
    config = resolve({"encoder": network, "decoder": network, "latents": latents}, preset=PRESET)
    size = LOWEST_SIZE * factor
    return RunMetadata(
        preset=PRESET,
        config=config,
        shape=(record["in_channels"], size, size),
        classes=(),
        source=None,
        seed=config.training.seed,
        device="cpu",
        versions={"vaekit": VERSION},
        threads=1,
    )


def _vaekit_name(name: str) -> str:
    """The name in vaekit of a tensor of diffusers."""
    parts = [FORMER_NAMES.get(part, part) for part in name.split(".")] if "attentions" in name else [name]
    return _renamed(".".join(parts), {theirs: ours for ours, theirs in NAMES.items()})


def _renamed(name: str, beginnings: dict[str, str]) -> str:
    for before, after in beginnings.items():
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name
