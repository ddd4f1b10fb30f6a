"""The command line that trains a run again, as it was or with a change that is possible."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vaekit.config.config import SLOTS, Config
from vaekit.config.overrides import differences, load_config, override, resolve
from vaekit.data.packs.pack import BUNDLED
from vaekit.errors import UserError
from vaekit.models.compatibility import is_valid


def train_command(record: Mapping[str, Any], dataset: Mapping[str, Any], changed: Config | None = None) -> str:
    """`vaekit train ...` for what config.json and dataset.json record, or for another configuration, each setting that
    is not the preset's as a flag; in Python where that alone can give what was given: images in memory, or modules."""
    config, preset = changed or load_config(record), resolve(preset=record["preset"])
    kinds = {slot: getattr(config, slot).kind for slot in SLOTS}
    kinds = {slot: kind for slot, kind in kinds.items() if kind != getattr(preset, slot).kind}
    flags: dict[str, Any] = {f"{slot}.kind": kind for slot, kind in kinds.items()}
    of_kinds = override(preset, kinds)  # a part of another kind starts from the defaults of its own
    flags |= {name: new for name, (_, new) in differences(of_kinds, config).items()}
    source = None if dataset["source"] == BUNDLED else record["source"]
    if needed := _from_python(config, record, dataset):
        return _in_python(needed, {"preset": record["preset"]}, flags)
    words = ["vaekit", "train", *([source] if source else []), "--preset", record["preset"]]
    for name, value in flags.items():
        if isinstance(value, bool):
            slot, _, setting = name.rpartition(".")
            words.append(f"--{f'{slot}.' if slot else ''}{'' if value else 'no-'}{setting}")
        elif value is not None:
            words += [f"--{name}", cli_value(value)]
    return shlex.join(words)


def resume_command_for(
    config: Config, record: Mapping[str, Any], dataset: Mapping[str, Any], run: str, epochs: int
) -> str:
    """The command line, or the line of Python, that goes on with a run to so many epochs."""
    if needed := _from_python(config, record, dataset):
        return _in_python(needed, {"out": run, "resume": True, "epochs": epochs}, {})
    return f"vaekit train --resume --out {shlex.quote(run)} --epochs {epochs}"


def _from_python(config: Config, record: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[str]:
    """The arguments of a training that Python alone can give; empty where a command line can."""
    own = [slot for slot in SLOTS if getattr(config, slot).kind == "own"]
    bundled = dataset["source"] == BUNDLED
    if not own and (bundled or record["source"]):
        return []
    data = [] if bundled else [repr(record["source"]) if record["source"] else "data"]
    return [*data, *(f"{slot}={slot}" for slot in own)]


def _in_python(given: Sequence[str], options: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    """`vaekit.train(data, ...)`; modules of one's own stand under the names of their rooms."""
    settings: dict[str, Any] = dict(options)
    for name, value in flags.items():
        slot, _, setting = name.replace("-", "_").rpartition(".")
        if f"{slot}={slot}" not in given and value is not None:
            (settings.setdefault(slot, {}) if slot else settings)[setting] = value
    words = [*given, *(f"{name}={value!r}" for name, value in settings.items())]
    return f"vaekit.train({', '.join(words)})"


def first_valid(config: Config, choices: Iterable[Mapping[str, Any]], images: int) -> Config:
    """The configuration with the first of some changes that makes another one whose parts go together, for so many
    training images; as it is where none does."""
    for changes in choices:
        try:
            new = override(config, changes)
        except UserError:
            continue
        if new != config and is_valid(new, images):
            return new
    return config


def cli_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
