"""The configuration as flags: a flat view of it that the command line can read and explain.

The kinds of a part share its flags (`--encoder.channels` belongs to `conv` and to `resnet`), which a parser cannot tell
from a union of settings classes; so each part becomes one class with the settings of all its kinds. What was written is
handed on as it was: `resolve` alone validates, once the preset is known.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from pydantic import BaseModel, Field, WrapValidator, create_model
from pydantic.fields import FieldInfo

from vaekit.config.base import BaseConfig
from vaekit.config.config import SLOTS, Config, settings_classes
from vaekit.config.data import DataConfig
from vaekit.config.training import TrainingConfig

CONFIG_GROUPS: dict[str, type[BaseConfig]] = {"training": TrainingConfig, "data": DataConfig}


HELP_GROUPS = {
    name: Group(name.capitalize(), sort_key=i) for i, name in enumerate((*CONFIG_GROUPS, "model", *SLOTS), 1)
}


DEFAULTS = Config()


def _type_of(field: FieldInfo) -> Any:
    """What the parser needs to know of a type: whether a flag takes a value, its choices, and its name in the help."""
    if field.annotation in (bool, int, float) or str(field.annotation).startswith("typing.Literal"):
        return field.annotation
    return str | None if field.default is None else str


def _display_default(value: Any) -> Any:
    """A default as a person would write it."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else value


def _default(field: FieldInfo) -> Any:
    return str(field.default) if _type_of(field) is str else _display_default(field.default)


def _help(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _group(name: str) -> tuple[Any, Any]:
    fields: dict[str, Any] = {
        key: (_type_of(field), Field(_default(field), description=_help(field)))
        for key, field in CONFIG_GROUPS[name].model_fields.items()
    }
    model_class = create_model(name, **fields)
    return Annotated[model_class, Parameter(name="*", group=HELP_GROUPS[name])], model_class()


def _slot(name: str) -> tuple[Any, Any]:
    kinds = {kind: model for kind, model in settings_classes(name).items() if kind != "own"}  # given from Python alone
    default = getattr(DEFAULTS, name).kind
    summary = "; ".join(f"{kind}: {(model.__doc__ or '').rstrip('.')}" for kind, model in kinds.items())
    fields: dict[str, Any] = {"kind": (Literal[tuple(kinds)], Field(default, description=summary))}
    for key in dict.fromkeys(key for model in kinds.values() for key in model.model_fields if key != "kind"):
        owners = {kind: model.model_fields[key] for kind, model in kinds.items() if key in model.model_fields}
        texts = list(dict.fromkeys(map(_help, owners.values())))
        owner_names = f"({', '.join(owners)}) " if len(kinds) > 1 else ""
        help_text = owner_names + " / ".join(texts)
        values = {_display_default(field.default) for field in owners.values()}
        if len(values) > 1:
            help_text += (
                " Default: "
                + ", ".join(f"{_display_default(f.default)} for {kind}" for kind, f in owners.items())
                + "."
            )
        shown = values.pop() if len(values) == 1 else None
        kind_of_value = _type_of(next(iter(owners.values())))
        fields[key] = (
            kind_of_value if shown is not None else kind_of_value | None,
            Field(shown, description=help_text),
        )
    model_class = create_model(name, **fields)
    return Annotated[model_class, Parameter(group=HELP_GROUPS[name])], model_class()


def _flags() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        if name in CONFIG_GROUPS:
            fields[name] = _group(name)
        elif name in SLOTS:
            fields[name] = _slot(name)
        else:
            fields[name] = (
                Annotated[_type_of(field), Parameter(group=HELP_GROUPS["model"])],
                Field(_default(field), description=_help(field)),
            )
    return create_model("Flags", **fields)


if TYPE_CHECKING:
    CliOverrides = dict[str, Any]
else:
    CliOverrides = Annotated[_flags(), Parameter(name="*"), WrapValidator(lambda given, _: given)]
"""The settings that were written, as a nested dictionary of strings."""


# --- Parameters that several verbs have ---

RunFolder = Annotated[Path, Parameter(help="Run folder that `vaekit train` wrote.")]
Seed = Annotated[int, Parameter(help="Random seed: the same seed gives the same images.")]
DataSource = Annotated[str | None, Parameter(help="Images, as `train` takes them; default: those it was trained on.")]
Class = Annotated[
    str | None, Parameter(name="--class", help="Class to draw with, in a conditional model; default: the first.")
]
Png = Annotated[Path | None, Parameter(help="PNG file to write; default: a new one in the run folder.")]
Out = Annotated[Path | None, Parameter(help="Folder to write to; default: a new one in the run folder.")]
