"""The whole configuration of a run: one validated tree, free of torch.

Names are the same everywhere: a flag `--objective.beta 4`, a TOML table `[objective] beta = 4`, a Python
argument `objective={"beta": 4}`, and the `config.json` of a run.
"""

from math import ceil, prod
from typing import Any, Literal, get_args

from pydantic import field_validator

from vaekit.config.base import BaseConfig
from vaekit.config.data import DataConfig
from vaekit.config.latents import (
    FlowMatchingConfig,
    GaussianPosteriorConfig,
    NormalPriorConfig,
    PosteriorConfig,
    PriorConfig,
)
from vaekit.config.likelihoods import BernoulliLikelihoodConfig, LikelihoodConfig
from vaekit.config.networks import ConvConfig, NetworkConfig
from vaekit.config.objectives import ElboConfig, ObjectiveConfig
from vaekit.config.training import TrainingConfig

AUTO_CHANNELS = 4
AUTO_SIZE = 12
"""Pixels on the longer side of an automatic latent image, at most, as long as the factor allows."""
AUTO_VECTOR = 128
"""Automatic latents of networks of dense layers."""
MAX_AUTO_FACTOR = 16
"""Pixels of the image for one of an automatic latent image, at most."""


class Config(BaseConfig):
    """Everything that determines what a run computes."""

    latents: int | str = 32
    """Latent dimensions: 32, or 4x7x7 for a latent image (channels x height x width), or auto, a latent image
    of a size that follows from the images."""
    latent_prior: Literal["density", "flow_matching"] = "density"
    """What new images are drawn from: a density fitted to the latents (mixtures of Gaussians, a spline flow),
    or also flow_matching, a second stage of training; the better one on held-out images is used."""
    conditional: bool = False
    """Condition on the class, to generate one class at a time."""
    encoder: NetworkConfig = ConvConfig()
    decoder: NetworkConfig = ConvConfig()
    posterior: PosteriorConfig = GaussianPosteriorConfig()
    prior: PriorConfig = NormalPriorConfig()
    likelihood: LikelihoodConfig = BernoulliLikelihoodConfig()
    objective: ObjectiveConfig = ElboConfig()
    flow_matching: FlowMatchingConfig = FlowMatchingConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("latents", mode="before")
    @classmethod
    def _latents(cls, value: Any) -> Any:
        if value == "auto":
            return value
        texts = [str(item) for item in value] if isinstance(value, (tuple, list)) else str(value).split("x")
        sizes = [int(text) if text.isdecimal() else 0 for text in texts]
        if len(sizes) not in (1, 3) or 0 in sizes or prod(sizes) > 65536:
            raise ValueError(
                "must be a number from 1 to 65536, channels x height x width such as 4x7x7, or auto"
            )
        return sizes[0] if len(sizes) == 1 else "x".join(map(str, sizes))

    def with_latents(self, shape: tuple[int, int, int]) -> "Config":
        """The same, with the latents that "auto" comes to for images of `shape` (C, H, W): a latent image, or
        a vector for networks of dense layers."""
        if self.latents != "auto":
            return self
        dense = bool({"mlp", "gated_mlp"} & {self.encoder.kind, self.decoder.kind})
        return self.model_copy(update={"latents": AUTO_VECTOR if dense else auto_latents(shape)})

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(D,), or (C, h, w) of a latent image."""
        return tuple(int(text) for text in str(self.latents).split("x"))


def auto_latents(shape: tuple[int, int, int]) -> str:
    """A latent image of at most `AUTO_SIZE` pixels on a side: the image's sides divided by a power of two."""
    _, height, width = shape
    factor = 1
    while factor < MAX_AUTO_FACTOR and max(height, width) > factor * AUTO_SIZE:
        factor *= 2
    return f"{AUTO_CHANNELS}x{ceil(height / factor)}x{ceil(width / factor)}"


GROUPS: dict[str, type[BaseConfig]] = {"data": DataConfig, "training": TrainingConfig}
"""Settings that users write at the top level: `epochs`, not `training.epochs`."""
TABLES: dict[str, type[BaseConfig]] = {"flow_matching": FlowMatchingConfig}
"""Settings that users write with the name of their table: `flow_matching.steps`."""
TOP_LEVEL = {name: group for group, model in GROUPS.items() for name in model.model_fields}
"""The names of these settings, and their group."""


def settings_classes(name: str) -> dict[str, type[BaseConfig]]:
    """The settings classes of a slot by kind, as in settings_classes("likelihood")["bernoulli"].

    Empty for a name that is not a slot.
    """
    members = get_args(Config.model_fields[name].annotation) if name in Config.model_fields else ()
    models = [m for m in members if isinstance(m, type) and issubclass(m, BaseConfig)]
    return {m.model_fields["kind"].default: m for m in models}


SLOTS = tuple(name for name in Config.model_fields if settings_classes(name))
"""encoder, decoder, posterior, prior, likelihood, objective."""
