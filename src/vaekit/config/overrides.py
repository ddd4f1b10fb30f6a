"""From what a person wrote to a configuration, or to one sentence that says what is wrong with it."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from vaekit.config.config import SLOTS, TOP_LEVEL, Config, settings_classes
from vaekit.config.data import DataConfig
from vaekit.config.presets import PRESETS
from vaekit.config.training import TrainingConfig
from vaekit.errors import UserError


def resolve(*layers: Mapping[str, Any], preset: str = "classic") -> Config:
    """The preset's settings, overridden by each of `layers` in turn, validated.

    Raises:
        UserError: an unknown name or an impossible value, in one sentence with the bounds or the nearest name.
    """
    if preset not in PRESETS:
        raise UserError(f"There is no preset {preset!r}{_nearest(preset, PRESETS)}; `vaekit presets` lists them.")
    return override(Config(), PRESETS[preset].settings, *layers)


def override(config: Config, *layers: Mapping[str, Any]) -> Config:
    """`config` overridden by each of `layers` in turn, validated; it raises as `resolve` does."""
    tree = config.model_dump()
    for layer in layers:
        merge(tree, nest(layer))
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(format_error(error)) from None


def load_config(record: Mapping[str, Any]) -> Config:
    """The configuration that a run's config.json holds.

    Raises:
        UserError: it is damaged.
    """
    try:
        return Config.model_validate(record["config"])
    except (KeyError, ValidationError) as error:
        text = format_error(error) if isinstance(error, ValidationError) else "It has no configuration."
        raise UserError(f"The run's config.json is damaged, restore it from a copy: {text}") from None


def nest(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Move the flat names of data and training into their groups: {"epochs": 3} -> {"training": {"epochs": 3}}."""
    tree: dict[str, Any] = {}
    for name, value in layer.items():
        name = name.replace("-", "_")
        merge(tree, {TOP_LEVEL[name]: {name: value}} if name in TOP_LEVEL else {name: value})
    return tree


def merge(tree: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Lay `layer` over `tree`, in place. A part of another kind replaces the part and all of its settings."""
    for name, value in layer.items():
        old = tree.get(name)
        if isinstance(value, str) and isinstance(old, dict) and "kind" in old:
            value = {"kind": value}
        if isinstance(value, Mapping) and isinstance(old, dict):
            value = {key.replace("-", "_"): item for key, item in value.items()}
            if "kind" in value and "kind" in old and value["kind"] != old["kind"]:
                old.clear()
            merge(old, value)
        else:
            tree[name] = dict(value) if isinstance(value, Mapping) else value


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations differ, by their names on the command line: name -> (old, new)."""
    before, after = _leaves(old.model_dump()), _leaves(new.model_dump())
    return {name: (before.get(name), after.get(name)) for name in before | after if before.get(name) != after.get(name)}


def describe_components(config: Config) -> str:
    """The parts of a configuration in a line, with what their settings have beside the defaults."""
    texts = []
    for slot in SLOTS:
        part = getattr(config, slot)
        if slot == "decoder" and part == config.encoder:
            continue
        changed = [
            f"{name} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in part.model_dump(exclude_defaults=True, exclude={"kind"}).items()
        ]
        name = part.kind if slot == "objective" else f"{part.kind} {'network' if slot == 'encoder' else slot}"
        texts.append(f"{name} ({', '.join(changed)})" if changed else name)
    texts += [
        f"{name.replace('_', ' ')} {value}" for name, value in config.training.model_dump(exclude_defaults=True).items()
    ]
    texts += [f"{config.latents} latents"] * (config.latents != Config().latents)
    return ", ".join([*texts, *["conditional"] * config.conditional])


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, "" if name in ("data", "training") else f"{name}.")
        else:
            leaves[f"{prefix}{name}".replace("_", "-")] = value
    return leaves


def format_error(error: ValidationError) -> str:
    """The first error that pydantic reports, as one sentence: the name, the value, its bounds or the nearest name."""
    details = error.errors()[0]
    path = [str(word) for word in details["loc"] if not isinstance(word, int)]
    if not path:
        return "The settings are not a table of names and values."
    model, flag, kind = _locate(path)
    value = details["input"]
    if details["type"] == "extra_forbidden":
        owner = f" of {path[0]} {kind!r}" if kind else ""
        names = [*model.model_fields, *TOP_LEVEL] if model is Config else list(model.model_fields)
        kinds_with_it = [
            other for other, settings in settings_classes(path[0]).items() if path[-1] in settings.model_fields
        ]
        fix = (
            f"; it belongs to --{path[0]}.kind {' or '.join(kinds_with_it)}"
            if kinds_with_it
            else _nearest(path[-1], names, flag)
        )
        return f"There is no setting {flag!r}{owner}{fix}."
    if details["type"].startswith("union_tag"):
        slot, tag = path[-1], details["ctx"].get("tag")
        kinds = settings_classes(slot)
        text = f"There is no {slot} of kind {tag!r}{_nearest(tag, kinds)}" if tag else f"The {slot} has no kind"
        return f"{text}; --{slot}.kind takes {' or '.join(kinds)}."
    text = details["msg"].removeprefix("Input ").removeprefix("Value error, ")
    if kind and len(path) == 2 and details["type"] == "value_error":  # settings that do not go with each other
        return f"The {path[0]} {kind!r} with these settings is not possible: {text}."
    near = ""
    if details["type"] == "literal_error":
        field = model.model_fields[path[-1]]
        near = _nearest(str(value), [str(word) for word in get_args(field.annotation)])
    return f"--{flag} {value} is not possible: it {text}{near}."


def _locate(path: list[str]) -> tuple[type[BaseModel], str, str | None]:
    """The settings class that holds a faulty field, the field's name on the command line, and the part's kind.

    `path` is pydantic's: a part of several kinds is followed by its kind, as in likelihood, gaussian, scale.
    """
    groups: dict[str, type[BaseModel]] = {"data": DataConfig, "training": TrainingConfig}
    slot, *rest = path
    if slot in groups and rest:
        return groups[slot], rest[-1].replace("_", "-"), None
    kinds = settings_classes(slot)
    if not kinds or not rest:
        return Config, slot.replace("_", "-"), None
    return kinds[rest[0]], f"{slot}.{rest[-1]}".replace("_", "-"), rest[0]


def _nearest(word: str, names: Iterable[str], flag: str | None = None) -> str:
    """`, did you mean ...?` where one of `names` is close to `word`."""
    close = difflib.get_close_matches(word.replace("-", "_"), list(names), n=1, cutoff=0.5)
    if not close:
        return ""
    full = close[0] if flag is None else ".".join([*flag.split(".")[:-1], close[0]]).replace("_", "-")
    return f" (did you mean {full!r}?)"
