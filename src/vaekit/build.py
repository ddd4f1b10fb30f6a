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
from vaekit.devices import own_noise
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
    with own_noise():
        _require_fit(config, classes, images)
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
        model.recordable = not networks
    # Images come with their colours last in memory, as convolutions like it; so do the weights then
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, objective


def fits(config: Config, images: int = 0) -> bool:
    """Whether its parts go together (see `build`)."""
    return _fault(config, images) is None


def _make(room: str, settings: Settings, **context: Any) -> Any:
    """A part from its settings and from as much of what the rest of the model decides as it asks for."""
    make = registered(room)[settings.model_dump()["kind"]]
    wanted = inspect.signature(make).parameters
    context = {name: value for name, value in context.items() if name in wanted}
    return make(**context, **settings.model_dump(exclude={"kind"}))


@dataclass(frozen=True)
class _Fault:
    by: str
    """The room of the part that needs something."""
    of: str
    """The room of the part that does not offer it, or "model"."""
    missing: frozenset[str]
    """What: words of CAPABILITIES."""


def _require_fit(config: Config, classes: int, images: int) -> None:
    """Refuse parts that do not go together, in one sentence that names both sides and what would work here."""
    fault = _fault(config, images)
    if fault is None:
        return
    asking, asked = getattr(config, fault.by), getattr(config, fault.of, None)
    words = " and ".join(CAPABILITIES[one] for one in sorted(fault.missing))
    choices, flags = _ways_out(config, fault, images)
    if fault.missing == {"labels"} and classes:
        choices.insert(0, "add --conditional")
    if fault.missing == {"batch"} and config.training.batch_size == 1:
        choices.insert(0, "take --batch-size 2 or more")
    choices += [f"leave out {flag}" for flag in flags.values()]
    wanted, lacking = (
        (f"a {fault.of} with {words}", f"{asked.kind!r}{_with(flags.get(fault.of))}")
        if asked
        else (words, "this model")
    )
    raise UserError(
        f"The {fault.by} {asking.kind!r}{_with(flags.get(fault.by))} needs {wanted}, which {lacking} does not have: "
        f"{', or '.join(choices)}."
    )


def _with(flag: str | None) -> str:
    return f" with {flag}" if flag else ""


def _ways_out(config: Config, fault: _Fault, images: int) -> tuple[list[str], dict[str, str]]:
    """What mends a fault on either side: other kinds, and by room a setting to leave out."""

    def mends(other: Config) -> tuple[bool, bool]:
        left = _fault(other, images)
        return left is None or (left.by, left.of) != (fault.by, fault.of), left is None

    kinds: list[tuple[str, str, bool]] = []
    flags: dict[str, str] = {}
    for room in (fault.of, fault.by):
        if room == "model":
            continue
        part = getattr(config, room)
        for kind, make in parts_of(room).items():
            helps, wholly = mends(config.model_copy(update={room: make()}))
            if helps and kind != part.kind:
                kinds.append((room, kind, wholly))
        for name, value in part.model_dump(exclude_defaults=True, exclude={"kind"}).items():
            default = getattr(type(part)(), name)
            if mends(config.model_copy(update={room: part.model_copy(update={name: default})}))[0]:
                flags[room] = f"--{room}.{name.replace('_', '-')} {value}"
    best = any(wholly for *_, wholly in kinds)  # where other rooms are at fault as well: what mends this fault
    able = {room: " or ".join(k for r, k, wholly in kinds if r == room and wholly >= best) for room, *_ in kinds}
    choices = [f"--{room}.kind {names}" for room, names in able.items() if names]
    return [f"choose {', or '.join(choices)}"] if choices else [], flags


def _fault(config: Config, images: int) -> _Fault | None:
    """The first need of the objective or of a part that another part does not meet."""
    objective = _make("objective", config.objective)
    parts = {room: registered(room)[getattr(config, room).kind] for room in ROOMS if room != "objective"}
    has = {room: offers(part) for room, part in parts.items()}
    has["likelihood"] = offers(_make("likelihood", config.likelihood, channels=1))  # its settings count
    size = config.training.batch_size
    together = images != 1 and size != 1  # of a size to be found there is more than one
    has["model"] = frozenset(["labels"] * config.conditional + ["batch"] * together)
    for by, part in [("objective", objective), *parts.items()]:
        for of, needed in getattr(part, "needs", {}).items():
            if missing := needed - has[of]:
                return _Fault(by, of, missing)
    return None
