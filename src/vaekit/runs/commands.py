"""The command line that trains a run again, as it was or with a change that is possible."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vaekit.config.config import ROOMS, Config
from vaekit.config.overrides import differences, resolve, revise, stored
from vaekit.data.packs.pack import BUNDLED
from vaekit.errors import UserError
from vaekit.models.compatibility import fits


def command(record: Mapping[str, Any], dataset: Mapping[str, Any], changed: Config | None = None) -> str:
    """`vaekit train ...` for what config.json and dataset.json record, or for another configuration, each setting that
    is not the preset's as a flag; in Python where that alone can give what was given: images in memory, or modules."""
    config, preset = changed or stored(record), resolve(preset=record["preset"])
    kinds = {room: getattr(config, room).kind for room in ROOMS}
    kinds = {room: kind for room, kind in kinds.items() if kind != getattr(preset, room).kind}
    flags: dict[str, Any] = {f"{room}.kind": kind for room, kind in kinds.items()}
    of_kinds = revise(preset, kinds)  # a part of another kind starts from the defaults of its own
    flags |= {name: new for name, (_, new) in differences(of_kinds, config).items()}
    source = None if dataset["source"] == BUNDLED else record["source"]
    if needed := _from_python(config, record, dataset):
        return _in_python(needed, {"preset": record["preset"]}, flags)
    words = ["vaekit", "train", *([source] if source else []), "--preset", record["preset"]]
    for name, value in flags.items():
        if isinstance(value, bool):
            room, _, setting = name.rpartition(".")
            words.append(f"--{f'{room}.' if room else ''}{'' if value else 'no-'}{setting}")
        elif value is not None:
            words += [f"--{name}", _written(value)]
    return shlex.join(words)


def longer(config: Config, record: Mapping[str, Any], dataset: Mapping[str, Any], run: str, epochs: int) -> str:
    """The command line, or the line of Python, that goes on with a run to so many epochs."""
    if needed := _from_python(config, record, dataset):
        return _in_python(needed, {"out": run, "resume": True, "epochs": epochs}, {})
    return f"vaekit train --resume --out {shlex.quote(run)} --epochs {epochs}"


def _from_python(config: Config, record: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[str]:
    """The arguments of a training that Python alone can give; empty where a command line can."""
    own = [room for room in ROOMS if getattr(config, room).kind == "own"]
    bundled = dataset["source"] == BUNDLED
    if not own and (bundled or record["source"]):
        return []
    data = [] if bundled else [repr(record["source"]) if record["source"] else "data"]
    return [*data, *(f"{room}={room}" for room in own)]


def _in_python(given: Sequence[str], options: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    """`vaekit.train(data, ...)`; modules of one's own stand under the names of their rooms."""
    settings: dict[str, Any] = dict(options)
    for name, value in flags.items():
        room, _, setting = name.replace("-", "_").rpartition(".")
        if f"{room}={room}" not in given and value is not None:
            (settings.setdefault(room, {}) if room else settings)[setting] = value
    words = [*given, *(f"{name}={value!r}" for name, value in settings.items())]
    return f"vaekit.train({', '.join(words)})"


def first_possible(config: Config, choices: Iterable[Mapping[str, Any]], images: int) -> Config:
    """The configuration with the first of some changes that makes another one whose parts go together, for so many
    training images; as it is where none does."""
    for changes in choices:
        try:
            new = revise(config, changes)
        except UserError:
            continue
        if new != config and fits(new, images):
            return new
    return config


def _written(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
