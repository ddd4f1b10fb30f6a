"""The whole configuration of a run: one validated tree, free of torch.

Names are the same everywhere: a flag `--objective.beta 4`, a TOML table `[objective] beta = 4`, a Python
argument `objective={"beta": 4}`, and the `config.json` of a run.
"""

from math import prod
from typing import Any, get_args

from pydantic import field_validator

from vaekit.config.base import BaseConfig
from vaekit.config.data import DataConfig
from vaekit.config.latents import GaussianPosteriorConfig, NormalPriorConfig, PosteriorConfig, PriorConfig
from vaekit.config.likelihoods import BernoulliLikelihoodConfig, LikelihoodConfig
from vaekit.config.networks import ConvConfig, NetworkConfig
from vaekit.config.objectives import ElboConfig, ObjectiveConfig
from vaekit.config.training import TrainingConfig


class Config(BaseConfig):
    """Everything that determines what a run computes."""

    latents: int | str = 32
    """Latent dimensions: 32, or 4x7x7 for a latent image. The latter is channels x height x width."""
    conditional: bool = False
    """Condition on the class, to generate one class at a time."""
    encoder: NetworkConfig = ConvConfig()
    decoder: NetworkConfig = ConvConfig()
    posterior: PosteriorConfig = GaussianPosteriorConfig()
    prior: PriorConfig = NormalPriorConfig()
    likelihood: LikelihoodConfig = BernoulliLikelihoodConfig()
    objective: ObjectiveConfig = ElboConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("latents", mode="before")
    @classmethod
    def _latents(cls, value: Any) -> Any:
        texts = [str(item) for item in value] if isinstance(value, (tuple, list)) else str(value).split("x")
        sizes = [int(text) if text.isdecimal() else 0 for text in texts]
        if len(sizes) not in (1, 3) or 0 in sizes or prod(sizes) > 65536:
            raise ValueError("must be a number from 1 to 65536, or channels x height x width such as 4x7x7")
        return sizes[0] if len(sizes) == 1 else "x".join(map(str, sizes))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(D,), or (C, h, w) of a latent image."""
        return tuple(int(text) for text in str(self.latents).split("x"))


GROUPS: dict[str, type[BaseConfig]] = {"data": DataConfig, "training": TrainingConfig}
"""Settings that users write at the top level: `epochs`, not `training.epochs`."""
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
