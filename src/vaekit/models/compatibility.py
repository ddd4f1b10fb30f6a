"""Which parts go together: refusing what does not, in one sentence that says what would work."""

from dataclasses import dataclass

from vaekit.config.config import SLOTS, Config, settings_classes
from vaekit.errors import UserError
from vaekit.models.registry import CAPABILITIES, components, make_component, provides


def is_valid(config: Config, images: int = 0) -> bool:
    """Whether its parts go together (see `build`)."""
    return _incompatibility(config, images) is None


@dataclass(frozen=True)
class _Incompatibility:
    by: str
    """The room of the part that needs something."""
    of: str
    """The room of the part that does not offer it, or "model"."""
    missing: frozenset[str]
    """What: words of CAPABILITIES."""


def require_compatible(config: Config, classes: int, images: int) -> None:
    """Refuse parts that do not go together, in one sentence that names both sides and what would work here."""
    fault = _incompatibility(config, images)
    if fault is None:
        return
    asking, asked = getattr(config, fault.by), getattr(config, fault.of, None)
    words = " and ".join(CAPABILITIES[one] for one in sorted(fault.missing))
    choices, flags = _suggestions(config, fault, images)
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


def _suggestions(config: Config, fault: _Incompatibility, images: int) -> tuple[list[str], dict[str, str]]:
    """What mends a fault on either side: other kinds, and by room a setting to leave out."""

    def mends(other: Config) -> tuple[bool, bool]:
        left = _incompatibility(other, images)
        return left is None or (left.by, left.of) != (fault.by, fault.of), left is None

    kinds: list[tuple[str, str, bool]] = []
    flags: dict[str, str] = {}
    for slot in (fault.of, fault.by):
        if slot == "model":
            continue
        part = getattr(config, slot)
        for kind, make in settings_classes(slot).items():
            helps, wholly = mends(config.model_copy(update={slot: make()}))
            if helps and kind != part.kind:
                kinds.append((slot, kind, wholly))
        for name, value in part.model_dump(exclude_defaults=True, exclude={"kind"}).items():
            default = getattr(type(part)(), name)
            if mends(config.model_copy(update={slot: part.model_copy(update={name: default})}))[0]:
                flags[slot] = f"--{slot}.{name.replace('_', '-')} {value}"
    best = any(wholly for *_, wholly in kinds)  # where other rooms are at fault as well: what mends this fault
    able = {slot: " or ".join(k for r, k, wholly in kinds if r == slot and wholly >= best) for slot, *_ in kinds}
    choices = [f"--{slot}.kind {names}" for slot, names in able.items() if names]
    return [f"choose {', or '.join(choices)}"] if choices else [], flags


def _incompatibility(config: Config, images: int) -> _Incompatibility | None:
    """The first need of the objective or of a part that another part does not meet."""
    objective = make_component("objective", config.objective)
    parts = {slot: components(slot)[getattr(config, slot).kind] for slot in SLOTS if slot != "objective"}
    has = {slot: provides(part) for slot, part in parts.items()}
    has["likelihood"] = provides(make_component("likelihood", config.likelihood, channels=1))  # its settings count
    size = config.training.batch_size
    together = images != 1 and size != 1  # of a size to be found there is more than one
    has["model"] = frozenset(["labels"] * config.conditional + ["batch"] * together)
    for by, part in [("objective", objective), *parts.items()]:
        for of, needed in getattr(part, "requires", {}).items():
            if missing := needed - has[of]:
                return _Incompatibility(by, of, missing)
    return None
