"""From presets, files and flags to a configuration, or to one sentence that says what is wrong."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vaekit.config.config import GROUPS, SLOTS, TABLES, TOP_LEVEL, Config, settings_classes
from vaekit.config.presets import PRESETS
from vaekit.config.suggestions import did_you_mean
from vaekit.errors import UserError, setting


def resolve(
    *layers: Mapping[str, Any], preset: str = "classic", base: Mapping[str, Any] = MappingProxyType({})
) -> Config:
    """The settings of `base`, overridden by the preset's and by each of `layers` in turn, validated.

    Raises:
        UserError: an unknown name or an impossible value, with the bounds or the nearest name.
    """
    if preset not in PRESETS:
        near = did_you_mean(preset, PRESETS)
        raise UserError(f"Unknown preset {preset!r}.", f"{near} `vaekit presets` lists all of them.".lstrip())
    return override(Config(), base, PRESETS[preset].settings, *layers)


def override(config: Config, *layers: Mapping[str, Any]) -> Config:
    """`config` overridden by each of `layers` in turn, validated; it raises as `resolve` does."""
    tree = config.model_dump()
    for layer in layers:
        merge(tree, nest(layer))
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _user_error(error) from None


def nest(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Move flat names into their groups: {"epochs": 3} -> {"training": {"epochs": 3}}."""
    tree: dict[str, Any] = {}
    for name, value in layer.items():
        name = name.replace("-", "_")
        merge(tree, {TOP_LEVEL[name]: {name: value}} if name in TOP_LEVEL else {name: value})
    return tree


def merge(tree: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Lay `layer` over `tree`, in place; a component of another kind replaces all settings of the old."""
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
    """The settings in which two configurations differ, by their names as flags: name -> (old, new)."""
    before, after = leaves(old.model_dump()), leaves(new.model_dump())
    pairs = {name: (before.get(name), after.get(name)) for name in before | after}
    return {name: (was, now) for name, (was, now) in pairs.items() if was != now}


def describe_components(config: Config) -> str:
    """The components of a configuration in one line, with the settings that are not at their defaults."""
    texts = []
    for slot in SLOTS:
        component = getattr(config, slot)
        if slot == "decoder" and component == config.encoder:
            continue
        given = component.model_dump(exclude_defaults=True, exclude={"kind"})
        changed = [f"{k} {','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in given.items()]
        noun = {"objective": "", "encoder": " network"}.get(slot, f" {slot}")
        details = f" ({', '.join(changed)})" if changed else ""
        texts.append(f"{component.kind}{noun}{details}")
    for name, value in config.training.model_dump(exclude_defaults=True).items():
        texts.append(f"{name.replace('_', ' ')} {value}")
    if config.latents != Config().latents:
        texts.append(f"{config.latents} latents")
    if config.conditional:
        texts.append("conditional")
    return ", ".join(texts)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings in a configuration as nested dictionaries, by their names as flags."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            values |= leaves(value, "" if name in GROUPS else f"{name}.")
        else:
            values[f"{prefix}{name}".replace("_", "-")] = value
    return values


def _user_error(error: ValidationError) -> UserError:
    """The first error that pydantic reports, with the bounds or the nearest name."""
    details = error.errors()[0]
    path = [str(word) for word in details["loc"] if not isinstance(word, int)]
    if not path:
        return UserError("The settings are not a table of names and values.")
    model, option, kind = _locate(path)
    if details["type"] == "extra_forbidden":
        return _unknown_setting(path, model, option, kind)
    if kind and len(path) == 2 and details["type"] == "value_error":  # settings that exclude each other
        return UserError(f"The settings of the {path[0]} {kind!r} are invalid: {_requirement(details)}.")
    choices, value, requirement = [], details["input"], _requirement(details)
    if details["type"].startswith("union_tag"):
        choices = [name for name in settings_classes(option) if name != "own"]
        value, option = details["ctx"]["tag"], f"{option}.kind"
    elif details["type"] == "literal_error":
        choices = [str(choice) for choice in get_args(model.model_fields[path[-1]].annotation)]
    if choices:
        requirement = f"must be {alternatives(choices)}"
    near = did_you_mean(str(value), choices)
    return UserError(f"{requirement} (got {str(value) or repr(value)}).", near, option)


def _requirement(details: ErrorDetails) -> str:
    """What a value must be, of an error that pydantic reports."""
    bounds = details.get("ctx", {})
    texts = {
        "greater_than_equal": "must be at least {ge:g}",
        "greater_than": "must be greater than {gt:g}",
        "less_than_equal": "must be at most {le:.15g}",
        "less_than": "must be less than {lt:.15g}",
        "multiple_of": "must be a multiple of {multiple_of:g}",
        "finite_number": "must be a finite number",
        **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "must be a whole number"),
        **dict.fromkeys(("float_parsing", "float_type"), "must be a number"),
        **dict.fromkeys(("bool_parsing", "bool_type"), "must be true or false"),
    }
    if details["type"] in texts:
        return texts[details["type"]].format(**bounds)
    return details["msg"].removeprefix("Value error, ").replace("Input should be", "must be").rstrip(".")


def _unknown_setting(path: list[str], model: type[BaseModel], option: str, kind: str | None) -> UserError:
    if kind is None:
        arguments = (
            "preset",
            "out",
            "resume",
            "minutes",
            "max_minutes",
            "from_run",
        )  # of `train`, which are not settings
        names = [*(name for name in Config.model_fields if name not in GROUPS), *TOP_LEVEL, *arguments]
        models = [(slot, model) for slot in SLOTS for model in settings_classes(slot).values()]
        names += [
            f"{slot}.{name}" for slot, model in (*models, *TABLES.items()) for name in model.model_fields
        ]
        return UserError(f"{option!r} is not a setting.", did_you_mean(option, names))
    slot, name = path[0], path[-1]
    fact = f"is not a setting of the {slot} {kind!r}."
    owners = [other for other, settings in settings_classes(slot).items() if name in settings.model_fields]
    if owners:
        needed = alternatives([setting(f"{slot}.kind", owner) for owner in owners])
        return UserError(f"{setting(option)} {fact}", f"It needs {needed}.")
    names = [f"{slot}.{name}" for name in model.model_fields]
    return UserError(f"{option!r} {fact}", did_you_mean(option, names))


def alternatives(choices: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def _locate(path: list[str]) -> tuple[type[BaseModel], str, str | None]:
    """The settings class of a faulty field, the setting's name, and the component's kind.

    `path` is pydantic's: a component is followed by its kind, as in likelihood, gaussian, scale.
    """
    slot, *rest = path
    if slot in TABLES and rest:
        return TABLES[slot], f"{slot}.{rest[-1]}", None
    if slot in GROUPS and rest:
        return GROUPS[slot], rest[-1], None
    kinds = settings_classes(slot)
    if not kinds or not rest:
        return Config, slot, None
    return kinds[rest[0]], f"{slot}.{rest[-1]}", rest[0]
