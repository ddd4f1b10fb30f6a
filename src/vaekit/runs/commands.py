"""Commands that repeat, resume or vary a training run, for the command line or, if need be, for Python."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaekit.config.config import SLOTS, Config
from vaekit.config.overrides import differences, override, resolve
from vaekit.data.packs.pack import BUNDLED
from vaekit.errors import UserError, flag_spelling
from vaekit.models.compatibility import is_valid
from vaekit.runs.metadata import DatasetSummary, RunMetadata


def train_command(metadata: RunMetadata, dataset: DatasetSummary, config: Config | None = None) -> str:
    """The command that trains a run, or the same data with another configuration and new weights.

    It is a line of Python for images in memory and custom modules.
    """
    from_run = metadata.from_run if config is None else None
    config, preset = config or metadata.config, resolve(preset=metadata.preset)
    kinds = {slot: getattr(config, slot).kind for slot in SLOTS}
    kinds = {slot: kind for slot, kind in kinds.items() if kind != getattr(preset, slot).kind}
    flags: dict[str, Any] = {f"{slot}.kind": kind for slot, kind in kinds.items()}
    defaults = override(preset, kinds)  # another kind has its own defaults
    flags |= {name: new for name, (_, new) in differences(defaults, config).items()}
    if arguments := _python_arguments(config, metadata, dataset):
        options = {"preset": metadata.preset} | ({"from_run": from_run} if from_run else {})
        return _python_call(arguments, options, flags)
    source = [] if dataset.source == BUNDLED or metadata.source is None else [metadata.source]
    start = ["--from", from_run] if from_run else []
    return shlex.join(["vaekit", "train", *source, "--preset", metadata.preset, *start, *_flags(flags)])


def resume_command(
    metadata: RunMetadata, dataset: DatasetSummary, run: Path, epochs: int | None = None
) -> str:
    """The command that resumes a run, up to `epochs` if given."""
    if arguments := _python_arguments(metadata.config, metadata, dataset):
        return _python_call(arguments, {"out": str(run), "resume": True}, {"epochs": epochs})
    command = f"vaekit train --resume --out {shlex.quote(str(run))}"
    return command if epochs is None else f"{command} --epochs {epochs}"


def first_valid(config: Config, choices: Iterable[Mapping[str, Any]], images: int) -> Config:
    """Apply the first of `choices` that alters `config` and is valid for so many training images, if any."""
    for changes in choices:
        try:
            changed = override(config, changes)
        except UserError:
            continue
        if changed != config and is_valid(changed, images):
            return changed
    return config


def _flags(settings: Mapping[str, Any]) -> list[str]:
    flags = []
    for name, value in settings.items():
        if isinstance(value, bool):
            flags.append(flag_spelling(name, str(value)))
        elif value is not None:
            flags += [f"--{name}", _flag_value(value)]
    return flags


def _flag_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _python_arguments(config: Config, metadata: RunMetadata, dataset: DatasetSummary) -> list[str]:
    """The arguments that only Python can give; empty if the command line can give all."""
    custom = [slot for slot in SLOTS if getattr(config, slot).kind == "own"]
    bundled = dataset.source == BUNDLED
    if not custom and (bundled or metadata.source):
        return []
    data = [] if bundled else [repr(metadata.source) if metadata.source else "data"]
    return [*data, *(f"{slot}={slot}" for slot in custom)]


def _python_call(arguments: Sequence[str], options: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    keywords: dict[str, Any] = dict(options)
    for name, value in settings.items():
        slot, _, field = name.replace("-", "_").rpartition(".")
        if f"{slot}={slot}" not in arguments and value is not None:
            (keywords.setdefault(slot, {}) if slot else keywords)[field] = value
    given = [*arguments, *(f"{name}={value!r}" for name, value in keywords.items())]
    return f"vaekit.train({', '.join(given)})"
