"""The command, on the command line or in Python, that trains a run again, resumes it, or trains a variation
of it."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaekit.config.config import SLOTS, Config
from vaekit.config.overrides import differences, override, resolve
from vaekit.data.packs.pack import BUNDLED
from vaekit.errors import UserError
from vaekit.models.compatibility import is_valid
from vaekit.runs.metadata import DatasetSummary, RunMetadata


def train_command(metadata: RunMetadata, dataset: DatasetSummary, config: Config | None = None) -> str:
    """The command that trains a run, or the same data with another configuration.

    Settings that differ from the preset's are flags. Where only Python can give what was given (images in
    memory, custom modules), it is a line of Python.
    """
    config, preset = config or metadata.config, resolve(preset=metadata.preset)
    kinds = {slot: getattr(config, slot).kind for slot in SLOTS}
    kinds = {slot: kind for slot, kind in kinds.items() if kind != getattr(preset, slot).kind}
    flags: dict[str, Any] = {f"{slot}.kind": kind for slot, kind in kinds.items()}
    of_these_kinds = override(
        preset, kinds
    )  # a component of another kind starts from the defaults of its own
    flags |= {name: new for name, (_, new) in differences(of_these_kinds, config).items()}
    if arguments := _python_arguments(config, metadata, dataset):
        return _python_call(arguments, {"preset": metadata.preset}, flags)
    source = [] if dataset.source == BUNDLED or metadata.source is None else [metadata.source]
    return shlex.join(["vaekit", "train", *source, "--preset", metadata.preset, *_flags(flags)])


def resume_command(
    metadata: RunMetadata, dataset: DatasetSummary, run: Path, epochs: int | None = None
) -> str:
    """The command that resumes a run, up to `epochs` if given."""
    if arguments := _python_arguments(metadata.config, metadata, dataset):
        options = {"out": str(run), "resume": True} | ({} if epochs is None else {"epochs": epochs})
        return _python_call(arguments, options, {})
    return f"vaekit train --resume --out {shlex.quote(str(run))}" + (
        "" if epochs is None else f" --epochs {epochs}"
    )


def first_valid(config: Config, choices: Iterable[Mapping[str, Any]], images: int) -> Config:
    """The configuration with the first of some changes that is another one and valid for so many training
    images; the same configuration if none is."""
    for changes in choices:
        try:
            changed = override(config, changes)
        except UserError:
            continue
        if changed != config and is_valid(changed, images):
            return changed
    return config


def _flags(settings: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in settings.items():
        if isinstance(value, bool):
            slot, dot, field = name.rpartition(".")
            words.append(f"--{slot}{dot}{'' if value else 'no-'}{field}")
        elif value is not None:
            words += [f"--{name}", _flag_value(value)]
    return words


def _flag_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _python_arguments(config: Config, metadata: RunMetadata, dataset: DatasetSummary) -> list[str]:
    """The arguments of a training that only Python can give; empty where a command line can."""
    custom = [slot for slot in SLOTS if getattr(config, slot).kind == "own"]
    bundled = dataset.source == BUNDLED
    if not custom and (bundled or metadata.source):
        return []
    data = [] if bundled else [repr(metadata.source) if metadata.source else "data"]
    return [*data, *(f"{slot}={slot}" for slot in custom)]


def _python_call(arguments: Sequence[str], options: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """`vaekit.train(data, ...)`; custom modules are given under the names of their slots."""
    keywords: dict[str, Any] = dict(options)
    for name, value in settings.items():
        slot, _, field = name.replace("-", "_").rpartition(".")
        if f"{slot}={slot}" not in arguments and value is not None:
            (keywords.setdefault(slot, {}) if slot else keywords)[field] = value
    words = [*arguments, *(f"{name}={value!r}" for name, value in keywords.items())]
    return f"vaekit.train({', '.join(words)})"
