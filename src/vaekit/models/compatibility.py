"""Which components are compatible: incompatible ones are refused with a message that says what would work."""

from typing import NamedTuple

from vaekit.config.config import SLOTS, Config, settings_classes
from vaekit.config.overrides import alternatives
from vaekit.errors import UserError, setting
from vaekit.models.registry import Capability, components, make_component


class _Incompatibility(NamedTuple):
    requirer: str  # the slot of the component that requires something
    provider: str  # the slot of the component that does not provide it, or "model"
    missing: frozenset[Capability]


def is_valid(config: Config, images: int = 0) -> bool:
    """Whether its components are compatible. `images` is the number of training images, 0 if unknown."""
    return _incompatibility(config, images) is None


def require_compatible(config: Config, classes: int, images: int) -> None:
    """Raise a UserError for incompatible components, which names both and what would work.

    Args:
        classes: number of labels in the data.
        images: number of training images, 0 if unknown.
    """
    conflict = _incompatibility(config, images)
    if conflict is None:
        return
    kinds, settings = _suggestions(config, conflict, images)
    choices = [alternatives([setting(f"{slot}.kind", kind), *rest]) for slot, (kind, *rest) in kinds.items()]
    if conflict.missing == {Capability.LABELS} and classes:
        choices.insert(0, setting("conditional", True))
    if conflict.missing == {Capability.BATCH} and config.training.batch_size == 1:
        choices.insert(0, f"{setting('batch_size', 2)} or more")
    fixes = [f"use {', or '.join(choices)}"] if choices else []
    hint = ", or ".join([*fixes, *(f"omit {text}" for text in settings.values())])

    def name(slot: str) -> str:
        with_setting = f" with {settings[slot]}" if slot in settings else ""
        return f"{slot} {getattr(config, slot).kind!r}{with_setting}"

    message = f"The {name(conflict.requirer)} needs "
    message += " and ".join(capability.value for capability in Capability if capability in conflict.missing)
    if conflict.provider != "model":
        message += f", which the {name(conflict.provider)} does not provide"
    raise UserError(f"{message}.", f"{hint[:1].upper()}{hint[1:]}.")


def _suggestions(
    config: Config, conflict: _Incompatibility, images: int
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What resolves a conflict: by slot other kinds, and by slot a setting to omit."""

    def resolved(other: Config) -> tuple[bool, bool]:
        """Whether this conflict is resolved, and whether all are."""
        remaining = _incompatibility(other, images)
        return remaining is None or remaining[:2] != conflict[:2], remaining is None

    kinds: list[tuple[str, str, bool]] = []
    settings: dict[str, str] = {}
    for slot in (conflict.provider, conflict.requirer):
        if slot == "model":
            continue
        component = getattr(config, slot)
        for kind, make in settings_classes(slot).items():
            this, all_of_them = resolved(config.model_copy(update={slot: make()}))
            if this and kind != component.kind:
                kinds.append((slot, kind, all_of_them))
        for name, value in component.model_dump(exclude_defaults=True, exclude={"kind"}).items():
            default = getattr(type(component)(), name)
            if resolved(config.model_copy(update={slot: component.model_copy(update={name: default})}))[0]:
                settings[slot] = setting(f"{slot}.{name}", value)
    # Where other slots are in conflict as well, no kind may resolve everything: then those that resolve this
    best = any(all_of_them for *_, all_of_them in kinds)
    able = [(slot, kind) for slot, kind, all_of_them in kinds if all_of_them >= best]
    return {slot: [kind for place, kind in able if place == slot] for slot, _ in able}, settings


def _incompatibility(config: Config, images: int) -> _Incompatibility | None:
    """The first requirement of the objective or of another component that is not met."""
    objective = make_component("objective", config.objective)
    classes = {slot: components(slot)[getattr(config, slot).kind] for slot in SLOTS if slot != "objective"}
    labels = {Capability.LABELS} if config.conditional or config.data.condition else set()
    # A batch size of "auto" never chooses one image
    batch = {Capability.BATCH} if images != 1 and config.training.batch_size != 1 else set()
    provided = {slot: component.provides for slot, component in classes.items()}
    provided["likelihood"] = make_component("likelihood", config.likelihood).provides  # as its settings say
    provided["model"] = frozenset(labels | batch)
    for requirer, component in [("objective", objective), *classes.items()]:
        for provider, required in component.requires.items():
            if missing := required - provided[provider]:
                return _Incompatibility(requirer, provider, missing)
    return None
