"""From a configuration to a model and an objective, refusing what does not make sense together."""

import copy
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn

import vaekit.parts.likelihoods
import vaekit.parts.networks
import vaekit.parts.objectives
import vaekit.parts.posteriors
import vaekit.parts.priors
import vaekit.parts.regularised  # noqa: F401  importing the rooms registers their parts
from vaekit.config import Config
from vaekit.errors import UserError
from vaekit.model import VAE
from vaekit.parts.types import CAPABILITIES, Objective, offers, registered
from vaekit.seeds import key
from vaekit.settings import Settings

ROOMS = ("encoder", "decoder", "posterior", "prior", "likelihood")
"""Where the modules of a model are; with the objective, all that a configuration chooses."""


def build(
    config: Config,
    shape: tuple[int, int, int],
    classes: int = 0,
    images: int = 0,
    networks: Mapping[str, nn.Module] = MappingProxyType({}),
) -> tuple[VAE, Objective]:
    """The model of a configuration for images of `shape` (C, H, W), and what it is trained to minimise.

    Weights are drawn from the configuration's seed; torch's own random state is left as it was. `classes` is the number
    of labels in the data; it matters only to a conditional model. `images` is the number of training images, for an
    objective whose estimate depends on it; a model that is only used does not need it. `networks` are the user's own
    modules, "encoder" or "decoder", where the configuration's kind is `own`.

    Raises:
        UserError: parts that do not go together, in one sentence that names both.
    """
    if config.conditional and classes == 0:
        raise UserError(
            "--conditional needs classes, but these images have none: put each class in a folder of its own."
        )
    given = classes if config.conditional else 0
    latents = config.latent_shape
    objective = cast(Objective, _make("objective", config.objective, images=images))
    _check_capabilities(config, objective)
    with torch.random.fork_rng():
        torch.manual_seed(key(config.training.seed, "weights"))
        likelihood = _make("likelihood", config.likelihood, channels=shape[0])
        context: dict[str, Any] = {"latents": latents, "classes": given}
        encoder = _make(
            "encoder", config.encoder, shape=shape, module=copy.deepcopy(networks.get("encoder")), **context
        )
        posterior = _make("posterior", config.posterior, features=encoder.features, latents=latents)
        prior = _make("prior", config.prior, shape=shape, **context)
        outputs = (likelihood.outputs, *shape[1:])
        decoder = _make(
            "decoder", config.decoder, shape=outputs, module=copy.deepcopy(networks.get("decoder")), **context
        )
        model = VAE(encoder, posterior, prior, decoder, likelihood, shape, latents, given)
    return model, objective


def _make(room: str, settings: Settings, **context: Any) -> Any:
    """A part from its settings and from as much of what the rest of the model decides as it asks for."""
    make = registered(room)[settings.model_dump()["kind"]]
    wanted = inspect.signature(make).parameters
    context = {name: value for name, value in context.items() if name in wanted}
    return make(**context, **settings.model_dump(exclude={"kind"}))


def _check_capabilities(config: Config, objective: Objective) -> None:
    """Every need of the objective and of a part is met by what the other parts offer."""
    _check(config, f"objective {config.objective.kind!r}", objective.needs)
    for room in ROOMS:
        kind = getattr(config, room).kind
        _check(config, f"{room} {kind!r}", getattr(registered(room)[kind], "needs", {}))


def _check(config: Config, who: str, needs: Mapping[str, frozenset[str]]) -> None:
    for room, needed in needs.items():
        kind, parts = getattr(config, room).kind, registered(room)
        if missing := needed - offers(parts[kind]):
            able = [name for name, part in parts.items() if needed <= offers(part)]
            raise UserError(
                f"The {who} with these settings needs {' and '.join(CAPABILITIES[one] for one in sorted(missing))} "
                f"from the {room}, which {kind!r} does not have; a {room} that has it: {' or '.join(able)}."
            )
