"""The whole configuration of a run: one validated tree, free of torch.

The same names everywhere: a flag `--objective.beta 4`, a TOML table `[objective] beta = 4`, a Python argument
`objective={"beta": 4}`, and `config.json` of a run. A part's settings class and the part itself (in `parts/`) are tied
by `kind`; the fields of the class are the keyword arguments of the part.
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

# --- The tree --------------------------------------------------------------------------------------------------------


class Config(BaseConfig):
    """Everything that decides what a run computes."""

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
        words = "x".join(map(str, value)).split("x") if isinstance(value, (tuple, list)) else str(value).split("x")
        splits = [int(word) for word in words if word.isdecimal()]
        if len(splits) != len(words) or len(splits) not in (1, 3) or not (min(splits) >= 1 and prod(splits) <= 65536):
            raise ValueError("must be a number from 1 to 65536, or channels x height x width such as 4x7x7")
        return splits[0] if len(splits) == 1 else "x".join(map(str, splits))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(D,), or (C, h, w) of a latent image."""
        return tuple(int(word) for word in str(self.latents).split("x"))


TOP_LEVEL = {
    name: group for group, model in (("data", DataConfig), ("training", TrainingConfig)) for name in model.model_fields
}
"""Names of data and training settings stand at the top level wherever a person writes them (`epochs`, not
`training.epochs`)."""


def settings_classes(name: str) -> dict[str, type[BaseConfig]]:
    """The settings classes a part of the configuration can have, by kind: parts_of("likelihood")["bernoulli"].

    Empty for a name that is not a part's.
    """
    annotation = Config.model_fields[name].annotation if name in Config.model_fields else None
    members = [m for m in get_args(annotation) or (annotation,) if isinstance(m, type) and issubclass(m, BaseConfig)]
    return {m.model_fields["kind"].default: m for m in members if "kind" in m.model_fields}


SLOTS = tuple(name for name in Config.model_fields if settings_classes(name))
"""Where the parts are: encoder, decoder, posterior, prior, likelihood, objective."""
