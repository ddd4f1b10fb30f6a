"""The command line that trains a run again, as it was or with a change."""

import shlex
from collections.abc import Mapping
from typing import Any

from vaekit.config import ROOMS
from vaekit.resolve import differences, resolve, revise, stored


def command(
    record: Mapping[str, Any], dataset: Mapping[str, Any], changes: Mapping[str, Any] | None = None, out: str = ""
) -> str:
    """`vaekit train ...` for what config.json and dataset.json record, each setting that is not the preset's as a flag.

    `changes` are flags laid over them ("objective.beta": 1.0). Data that were given from Python stand as DATA.
    """
    config, preset = stored(record), resolve(preset=record["preset"])
    kinds = {room: getattr(config, room).kind for room in ROOMS}
    kinds = {room: kind for room, kind in kinds.items() if kind != getattr(preset, room).kind}
    flags: dict[str, Any] = {f"{room}.kind": kind for room, kind in kinds.items()}
    of_kinds = revise(preset, kinds)  # a part of another kind starts from the defaults of its own
    flags |= {name: new for name, (_, new) in differences(of_kinds, config).items()}
    flags |= changes or {}
    given = dataset["source"] != "the bundled sample"
    words = ["vaekit", "train", *([record["source"] or "DATA"] if given else []), "--preset", record["preset"]]
    for name, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            words += [f"--{name}", _written(value)]
    return shlex.join([*words, *(["--out", out] if out else [])])


def _written(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
