"""Changes of settings that fix a fault: the first is taken that is valid and changes any."""

from typing import Any

from vaekit.config.config import Config

Changes = dict[str, Any]
"""Settings by name, those of a component by its slot: {"objective": {"beta": 1.0}}."""
VAE: Changes = {"posterior": {"kind": "gaussian"}, "objective": {"kind": "elbo"}}
"""Turns an autoencoder into a variational one."""


def weaker_kl(config: Config) -> tuple[Changes, ...]:
    """Against posterior collapse."""
    objective = config.objective
    if config.posterior.kind == "delta":
        return VAE, {"prior": {"kind": "normal"}, **VAE}
    warmup, free_bits = getattr(objective, "warmup", 0.0), getattr(objective, "free_bits", 0.0)
    return (
        {"objective": {"beta": min(1.0, getattr(objective, "beta", 1.0))}},
        {"objective": {"kind": "elbo", "warmup": max(warmup, min(10.0, config.training.epochs // 2))}},
        {"objective": {"kind": "elbo", "free_bits": 2 * free_bits or 0.1}},
        {"objective": {"kind": "elbo", "warmup": 2 * warmup}},
    )


def varied_images(config: Config, **others: Any) -> tuple[Changes, ...]:
    """Images that differ more from one epoch to the next."""
    crop = config.data.crop
    return {"flip": True, "crop": max(2, crop), **others}, {"crop": min(64, 2 * crop)}, {"jitter": 0.2}


def more_capacity(config: Config) -> tuple[Changes, ...]:
    """Against underfitting: beta of 1 at most, a larger model, or more epochs."""
    larger: Changes = {}
    if str(config.latents).isdecimal():
        larger["latents"] = max(16, 4 * int(config.latents))
    for slot in ("encoder", "decoder"):
        network = getattr(config, slot)
        if hasattr(network, "channels"):
            larger[slot] = {"channels": 2 * network.channels}
        elif getattr(network, "hidden", None):
            larger[slot] = {"hidden": tuple(max(400, 2 * width) for width in network.hidden)}
    beta = min(1.0, getattr(config.objective, "beta", 1.0))
    return {"objective": {"beta": beta}}, larger, {"epochs": 2 * config.training.epochs}
