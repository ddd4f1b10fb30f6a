"""From a configuration to a model and an objective, refusing what does not make sense together."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
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
from vaekit.config import ROOMS, Config, parts_of
from vaekit.errors import UserError
from vaekit.model import VAE
from vaekit.parts.types import CAPABILITIES, Objective, offers, registered
from vaekit.seeds import key
from vaekit.settings import Settings


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
    for room in networks:
        if (kind := getattr(config, room).kind) != "own":
            raise UserError(f"This model's {room} is {kind!r}, not a module of yours: leave {room}= out.")
    given = classes if config.conditional else 0
    latents = config.latent_shape
    objective = cast(Objective, _make("objective", config.objective, images=images))
    with torch.random.fork_rng():
        _require_fit(config, classes)
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


@dataclass(frozen=True)
class _Fault:
    who: str
    """What needs something that it does not get."""
    room: str
    """Whose part does not have it."""
    missing: frozenset[str]
    """What: words of CAPABILITIES, or none of them where the part itself needs a conditional model."""


def _require_fit(config: Config, classes: int) -> None:
    """Refuse parts that do not go together, in one sentence that names both sides and what would work here."""
    fault = _fault(config)
    if fault is None:
        return
    part = getattr(config, fault.room)
    others = {kind: config.model_copy(update={fault.room: make()}) for kind, make in parts_of(fault.room).items()}
    left = {kind: _fault(other) for kind, other in others.items()}
    able = [kind for kind, still in left.items() if still is None]
    # Where other rooms are at fault as well: what mends this fault
    able = able or [k for k, still in left.items() if still and (still.who, still.room) != (fault.who, fault.room)]
    changed = part.model_dump(exclude_defaults=True, exclude={"kind"})
    alone = {name for name in changed if _fault(_with_default(config, fault.room, name)) != fault}
    changed = {name: value for name, value in changed.items() if name in alone or not alone}
    flags = " ".join(f"--{fault.room}.{name} {value}" for name, value in changed.items())
    names = " or ".join(f"{kind} without {flags}" if kind == part.kind else kind for kind in able)
    if not fault.missing:
        start = "a conditional model: add --conditional" if classes else "classes, and these images have none"
        raise UserError(f"The {fault.who} needs {start}, or choose --{fault.room}.kind {names}.")
    words = " and ".join(CAPABILITIES[one] for one in sorted(fault.missing))
    with_flags = f" with {flags}" if part.kind in able else ""
    raise UserError(
        f"The {fault.who} with these settings needs {words} from the {fault.room}, which {part.kind!r} does not have"
        f"{with_flags}; a {fault.room} that has it: {names}."
    )


def _with_default(config: Config, room: str, setting: str) -> Config:
    part = getattr(config, room)
    return config.model_copy(update={room: part.model_copy(update={setting: getattr(type(part)(), setting)})})


def _fault(config: Config) -> _Fault | None:
    """The first need of the objective or of a part that another part does not meet."""
    objective = _make("objective", config.objective)
    parts = {room: registered(room)[getattr(config, room).kind] for room in ROOMS if room != "objective"}
    has = {room: offers(part) for room, part in parts.items()}
    has["likelihood"] = offers(_make("likelihood", config.likelihood, channels=1))  # its settings count
    needs = {f"objective {config.objective.kind!r}": objective.needs}
    needs |= {f"{room} {getattr(config, room).kind!r}": getattr(part, "needs", {}) for room, part in parts.items()}
    for who, rooms in needs.items():
        for room, needed in rooms.items():
            if missing := needed - has[room]:
                return _Fault(who, room, missing)
    for room, part in parts.items():
        if getattr(part, "needs_labels", False) and not config.conditional:
            return _Fault(f"{room} {getattr(config, room).kind!r}", room, frozenset())
    return None
