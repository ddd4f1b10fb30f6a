"""The configuration as flags: a flat view of it that the command line can parse and explain.

The kinds of a component share its flags (`--encoder.channels` belongs to `conv` and to `resnet`), which a
parser cannot tell from a union of settings classes; so each slot becomes one class with the settings of all
its kinds. Values are handed on as they are given: `resolve` alone validates, once the preset is known.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from pydantic import BaseModel, Field, WrapValidator, create_model
from pydantic.fields import FieldInfo

from vaekit.config.config import GROUPS, SLOTS, TABLES, Config, settings_classes

COMMON_OPTIONS = (
    "--out",
    "--preset",
    "--plan",
    "--resume",
    "--from",
    "--minutes",
    "--epochs",
    "--max-minutes",
    "--size",
    "--fit",
    "--latents",
    "--conditional",
    "--flip",
    "--batch-size",
    "--learning-rate",
    "--device",
    "--seed",
)
"""Options of `train` that `--help` lists, in this order."""

COMMON = Group("Common options", sort_key=0)
OTHER = Group("Other options", sort_key=1)
HELP_GROUPS = {
    name: Group(name.replace("_", " ").capitalize(), sort_key=index)
    for index, name in enumerate(("training", "data", *SLOTS, *TABLES), 2)
}
HELP_GROUPS["encoder"] = Group(
    "Encoder and decoder", "the decoder has the same options: --decoder.kind etc.", sort_key=4
)


def _type_of(field: FieldInfo) -> Any:
    """The type as the parser needs it: whether a flag takes a value, its choices, its name in the help."""
    if field.annotation in (bool, int, float) or str(field.annotation).startswith("typing.Literal"):
        return field.annotation
    return str | None if field.default is None else str


def _display_default(value: Any) -> Any:
    """A default as it is written on the command line."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else value


def _help(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _flag(name: str, field: FieldInfo, group: Group) -> tuple[Any, Any]:
    """The flag of a setting that is not a component's."""
    common = f"--{name.replace('_', '-')}" in COMMON_OPTIONS
    parameter = Parameter(group=COMMON if common else group)
    default = str(field.default) if _type_of(field) is str else _display_default(field.default)
    return Annotated[_type_of(field), parameter], Field(default, description=_help(field))


def _group(name: str) -> tuple[Any, Any]:
    fields: dict[str, Any] = {
        key: _flag(key, field, HELP_GROUPS[name]) for key, field in GROUPS[name].model_fields.items()
    }
    model_class = create_model(name, **fields)
    return Annotated[model_class, Parameter(name="*")], model_class()


def _table(name: str) -> tuple[Any, Any]:
    fields: dict[str, Any] = {
        key: (_type_of(field), Field(_display_default(field.default), description=_help(field)))
        for key, field in TABLES[name].model_fields.items()
    }
    model_class = create_model(name, **fields)
    return Annotated[model_class, Parameter(group=HELP_GROUPS[name])], model_class()


def _slot(name: str) -> tuple[Any, Any]:
    # A network of kind "own" is given from Python alone
    kinds = {kind: model for kind, model in settings_classes(name).items() if kind != "own"}
    summary = "\n".join(f"{kind}: {' '.join((model.__doc__ or '').split())}" for kind, model in kinds.items())
    default_kind = Config.model_fields[name].default.kind
    fields: dict[str, Any] = {"kind": (Literal[tuple(kinds)], Field(default_kind, description=summary))}
    for key in dict.fromkeys(key for model in kinds.values() for key in model.model_fields if key != "kind"):
        owners = {kind: model.model_fields[key] for kind, model in kinds.items() if key in model.model_fields}
        fields[key] = _shared_flag(owners, everywhere=len(owners) == len(kinds))
    model_class = create_model(name, **fields)
    return Annotated[model_class, Parameter(group=HELP_GROUPS[name], show=name != "decoder")], model_class()


def _shared_flag(owners: dict[str, FieldInfo], everywhere: bool) -> tuple[Any, Any]:
    """The flag of a setting that several kinds share, with a line of help for each meaning."""
    meanings: dict[tuple[str, Any], list[str]] = {}
    for kind, field in owners.items():
        meanings.setdefault((_help(field), _display_default(field.default)), []).append(kind)
    kind_of_value = _type_of(next(iter(owners.values())))
    if len(meanings) == 1:
        [((text, default), kinds)] = meanings.items()
        text = text if everywhere else f"{', '.join(kinds)}: {text}"
        return kind_of_value, Field(default, description=text)
    lines = [f"{', '.join(kinds)}: {text} (default: {value})" for (text, value), kinds in meanings.items()]
    return kind_of_value | None, Field(None, description="\n".join(lines))


def _flags() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        if name in GROUPS:
            fields[name] = _group(name)
        elif name in SLOTS:
            fields[name] = _slot(name)
        elif name in TABLES:
            fields[name] = _table(name)
        else:
            fields[name] = _flag(name, field, OTHER)
    return create_model("Flags", **fields)


if TYPE_CHECKING:
    CliOverrides = dict[str, Any]
else:
    CliOverrides = Annotated[_flags(), Parameter(name="*"), WrapValidator(lambda given, _: given)]
"""The settings that were given, as a nested dictionary of strings."""


# --- Parameters that several commands have ---

RunFolder = Annotated[Path, Parameter(help="Folder of a training run, or hf:USER/NAME.")]
Seed = Annotated[int, Parameter(help="Random seed: the same seed gives the same images.")]
DataSource = Annotated[str | None, Parameter(help="Images, as for `train` (default: the training images).")]
Class = Annotated[
    str | None, Parameter("--class", help="Class, in a conditional model (default: the first).")
]
FolderClass = Annotated[
    str | None, Parameter("--class", help="Class of all images (default: the name of their folder).")
]
ImageCondition = Annotated[
    str | None,
    Parameter("--condition", help="Conditions, such as age=30,smiling=1; others are at their average."),
]
Samples = Annotated[
    int, Parameter(help="Importance samples per image; more give a tighter bound, and take longer.")
]
SampleSeed = Annotated[int, Parameter(help="Random seed of the samples.")]
Png = Annotated[Path | None, Parameter(help="PNG file to write (default: a new one in the run folder).")]
Out = Annotated[Path | None, Parameter(help="Folder to write to (default: a new one in the run folder).")]
