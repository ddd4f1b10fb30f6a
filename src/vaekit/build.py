"""From a configuration to a model and an objective, refusing what does not make sense together."""

from typing import Any, cast

import torch
from torch import nn

import vaekit.parts.likelihoods
import vaekit.parts.networks
import vaekit.parts.objectives
import vaekit.parts.posteriors
import vaekit.parts.priors  # noqa: F401  importing the rooms registers their parts
from vaekit.config import Config
from vaekit.settings import Settings
from vaekit.errors import UserError
from vaekit.model import VAE
from vaekit.parts.types import CAPABILITIES, Objective, offers, registered
from vaekit.seeds import key


def build(config: Config, shape: tuple[int, int, int], classes: int = 0) -> tuple[VAE, Objective]:
    """The model of a configuration for images of `shape` (C, H, W), and what it is trained to minimise.

    Weights are drawn from the configuration's seed; torch's own random state is left as it was. `classes` is the number
    of labels in the data; it matters only to a conditional model.

    Raises:
        UserError: parts that do not go together, in one sentence that names both.
    """
    if config.conditional and classes == 0:
        raise UserError(
            "--conditional needs classes, but these images have none: put each class in a folder of its own."
        )
    given = classes if config.conditional else 0
    objective = cast(Objective, _make("objective", config.objective))
    with torch.random.fork_rng():
        torch.manual_seed(key(config.training.seed, "weights"))
        likelihood = _make("likelihood", config.likelihood, channels=shape[0])
        encoder = _make("encoder", config.encoder, shape=shape, classes=given)
        model = VAE(
            encoder=encoder,
            posterior=_make("posterior", config.posterior, features=encoder.features, latents=config.latents),
            prior=_make("prior", config.prior, latents=config.latents),
            decoder=_make(
                "decoder", config.decoder, shape=(likelihood.outputs, *shape[1:]), latents=config.latents, classes=given
            ),
            likelihood=likelihood,
            shape=shape,
            latents=config.latents,
            classes=given,
        )
    _check_capabilities(config, model, objective)
    return model, objective


def _make(room: str, settings: Settings, **context: Any) -> Any:
    """A part from its settings and from what the rest of the model decides for it."""
    kind = settings.model_dump()["kind"]
    return registered(room)[kind](**context, **settings.model_dump(exclude={"kind"}))


def _check_capabilities(config: Config, model: VAE, objective: Objective) -> None:
    wanted = config.objective.kind
    for room, needed in objective.needs.items():
        module = cast(nn.Module, getattr(model, room))
        for missing in sorted(needed - offers(module)):
            kind = getattr(config, room).kind
            able = [name for name, make in registered(room).items() if missing in offers(cast(type, make))]
            raise UserError(
                f"The objective {wanted!r} with these settings needs {CAPABILITIES[missing]} from the {room}, which "
                f"{kind!r} does not have; a {room} that has it: {' or '.join(able) or 'none yet'}."
            )
