"""Which parts go together: refusing what does not, in one sentence that says what would work."""

from dataclasses import dataclass

from vaekit.config.config import ROOMS, Config, parts_of
from vaekit.errors import UserError
from vaekit.models.registry import CAPABILITIES, _make, offers, registered


def fits(config: Config, images: int = 0) -> bool:
    """Whether its parts go together (see `build`)."""
    return _fault(config, images) is None


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
