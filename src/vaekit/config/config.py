"""The whole configuration of a run: one validated tree, free of torch.

The same names everywhere: a flag `--objective.beta 4`, a TOML table `[objective] beta = 4`, a Python argument
`objective={"beta": 4}`, and `config.json` of a run. A part's settings class and the part itself (in `parts/`) are tied
by `kind`; the fields of the class are the keyword arguments of the part.
"""

from math import prod
from typing import Any, get_args

from pydantic import field_validator

from vaekit.config.base import Settings
from vaekit.config.data import Data
from vaekit.config.latents import GaussianPosterior, NormalPrior, Posterior, Prior
from vaekit.config.likelihoods import BernoulliLikelihood, Likelihood
from vaekit.config.networks import Conv, Network
from vaekit.config.objectives import Elbo, Objective
from vaekit.config.training import Training

# --- The tree --------------------------------------------------------------------------------------------------------


class Config(Settings):
    """Everything that decides what a run computes."""

    latents: int | str = 32
    """Dimensions of the latent space; or 4x7x7, channels x height x width, for a latent image."""
    conditional: bool = False
    """Give the class of an image to encoder and decoder, so that one class can be generated."""
    encoder: Network = Conv()
    decoder: Network = Conv()
    posterior: Posterior = GaussianPosterior()
    prior: Prior = NormalPrior()
    likelihood: Likelihood = BernoulliLikelihood()
    objective: Objective = Elbo()
    data: Data = Data()
    training: Training = Training()

    @field_validator("latents", mode="before")
    @classmethod
    def _latents(cls, value: Any) -> Any:
        words = "x".join(map(str, value)).split("x") if isinstance(value, (tuple, list)) else str(value).split("x")
        sides = [int(word) for word in words if word.isdecimal()]
        if len(sides) != len(words) or len(sides) not in (1, 3) or not (min(sides) >= 1 and prod(sides) <= 65536):
            raise ValueError("should be a number from 1 to 65536, or channels x height x width such as 4x7x7")
        return sides[0] if len(sides) == 1 else "x".join(map(str, sides))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(D,), or (C, h, w) of a latent image."""
        return tuple(int(word) for word in str(self.latents).split("x"))


FLAT = {name: group for group, model in (("data", Data), ("training", Training)) for name in model.model_fields}
"""Names of data and training settings stand at the top level wherever a person writes them (`epochs`, not
`training.epochs`)."""


def parts_of(name: str) -> dict[str, type[Settings]]:
    """The settings classes a part of the configuration can have, by kind: parts_of("likelihood")["bernoulli"].

    Empty for a name that is not a part's.
    """
    annotation = Config.model_fields[name].annotation if name in Config.model_fields else None
    members = [m for m in get_args(annotation) or (annotation,) if isinstance(m, type) and issubclass(m, Settings)]
    return {m.model_fields["kind"].default: m for m in members if "kind" in m.model_fields}


ROOMS = tuple(name for name in Config.model_fields if parts_of(name))
"""Where the parts are: encoder, decoder, posterior, prior, likelihood, objective."""
