"""Which components go together: refusing what does not, in one sentence that says what would work."""

from dataclasses import dataclass

from vaekit.config.config import SLOTS, Config, settings_classes
from vaekit.errors import UserError
from vaekit.models.registry import Capability, components, make_component


def is_valid(config: Config, images: int = 0) -> bool:
    """Whether its components go together (see `build`)."""
    return _incompatibility(config, images) is None


@dataclass(frozen=True)
class _Incompatibility:
    requirer: str
    """The slot of the component that needs something."""
    provider: str
    """The slot of the component that does not offer it, or "model"."""
    missing: frozenset[Capability]


def require_compatible(config: Config, classes: int, images: int) -> None:
    """Refuse components that do not go together, in one sentence that names both sides and what would work here."""
    conflict = _incompatibility(config, images)
    if conflict is None:
        return
    asking, asked = getattr(config, conflict.requirer), getattr(config, conflict.provider, None)
    words = " and ".join(one.value for one in Capability if one in conflict.missing)
    choices, flags = _suggestions(config, conflict, images)
    if conflict.missing == {Capability.LABELS} and classes:
        choices.insert(0, "add --conditional")
    if conflict.missing == {Capability.BATCH} and config.training.batch_size == 1:
        choices.insert(0, "take --batch-size 2 or more")
    choices += [f"leave out {flag}" for flag in flags.values()]
    wanted, lacking = (
        (f"a {conflict.provider} with {words}", f"{asked.kind!r}{_with(flags.get(conflict.provider))}")
        if asked
        else (words, "this model")
    )
    raise UserError(
        f"The {conflict.requirer} {asking.kind!r}{_with(flags.get(conflict.requirer))} needs {wanted}, which {lacking} does not have: "
        f"{', or '.join(choices)}."
    )


def _with(flag: str | None) -> str:
    return f" with {flag}" if flag else ""


def _suggestions(config: Config, conflict: _Incompatibility, images: int) -> tuple[list[str], dict[str, str]]:
    """What fixes a conflict on either side: other kinds, and by slot a setting to leave out."""

    def fixes(other: Config) -> tuple[bool, bool]:
        remaining = _incompatibility(other, images)
        return remaining is None or (remaining.requirer, remaining.provider) != (
            conflict.requirer,
            conflict.provider,
        ), remaining is None

    kinds: list[tuple[str, str, bool]] = []
    flags: dict[str, str] = {}
    for slot in (conflict.provider, conflict.requirer):
        if slot == "model":
            continue
        component = getattr(config, slot)
        for kind, make in settings_classes(slot).items():
            helps, completely = fixes(config.model_copy(update={slot: make()}))
            if helps and kind != component.kind:
                kinds.append((slot, kind, completely))
        for name, value in component.model_dump(exclude_defaults=True, exclude={"kind"}).items():
            default = getattr(type(component)(), name)
            if fixes(config.model_copy(update={slot: component.model_copy(update={name: default})}))[0]:
                flags[slot] = f"--{slot}.{name.replace('_', '-')} {value}"
    best = any(
        completely for *_, completely in kinds
    )  # where other slots are at fault as well: what fixes this conflict
    able = {
        slot: " or ".join(k for r, k, completely in kinds if r == slot and completely >= best) for slot, *_ in kinds
    }
    choices = [f"--{slot}.kind {names}" for slot, names in able.items() if names]
    return [f"choose {', or '.join(choices)}"] if choices else [], flags


def _incompatibility(config: Config, images: int) -> _Incompatibility | None:
    """The first need of the objective or of a component that another component does not meet."""
    objective = make_component("objective", config.objective)
    registered = {slot: components(slot)[getattr(config, slot).kind] for slot in SLOTS if slot != "objective"}
    provided = {slot: component.provides for slot, component in registered.items()}
    provided["likelihood"] = make_component("likelihood", config.likelihood).provides  # its settings count
    size = config.training.batch_size
    together = images != 1 and size != 1  # of a size to be found there is more than one
    provided["model"] = frozenset([Capability.LABELS] * config.conditional + [Capability.BATCH] * together)
    for requirer, component in [("objective", objective), *registered.items()]:
        for provider, needed in component.requires.items():
            if missing := needed - provided[provider]:
                return _Incompatibility(requirer, provider, missing)
    return None
