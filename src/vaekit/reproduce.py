"""The command line that trains a run again, as it was or with a change that is possible."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from vaekit.build import fits
from vaekit.config import ROOMS, Config
from vaekit.errors import UserError
from vaekit.resolve import differences, resolve, revise, stored


def command(record: Mapping[str, Any], dataset: Mapping[str, Any], changed: Config | None = None) -> str:
    """`vaekit train ...` for what config.json and dataset.json record, or for another configuration, each setting that
    is not the preset's as a flag. Data that were given from Python stand as DATA."""
    config, preset = changed or stored(record), resolve(preset=record["preset"])
    kinds = {room: getattr(config, room).kind for room in ROOMS}
    kinds = {room: kind for room, kind in kinds.items() if kind != getattr(preset, room).kind}
    flags: dict[str, Any] = {f"{room}.kind": kind for room, kind in kinds.items()}
    of_kinds = revise(preset, kinds)  # a part of another kind starts from the defaults of its own
    flags |= {name: new for name, (_, new) in differences(of_kinds, config).items()}
    given = dataset["source"] != "the bundled sample"
    words = ["vaekit", "train", *([record["source"] or "DATA"] if given else []), "--preset", record["preset"]]
    for name, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            words += [f"--{name}", _written(value)]
    return shlex.join(words)


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
    return f"{value:g}" if isinstance(value, float) else str(value)
