"""From what a person asked for to what will be done: a run, its data, its preset and its configuration."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vaekit.config.config import Config
from vaekit.config.overrides import differences, load_config, override, resolve
from vaekit.config.training import TrainingConfig
from vaekit.data.packs.pack import Pack, open_pack
from vaekit.errors import UserError
from vaekit.models.builder import build
from vaekit.models.registry import provides
from vaekit.models.terms import Objective
from vaekit.models.vae import VAE
from vaekit.runs.folder import Run
from vaekit.runs.metadata import FORMAT, read_config, read_dataset
from vaekit.runs.outputs import first_free
from vaekit.utils.device import hardware_name, is_available, resolve_device
from vaekit.utils.files import require_outside
from vaekit.version import VERSION

AUTO_SETTINGS = ("precision", "batch_size", "compile")
"""Settings that may be "auto"; what they come to stands in config.json, for a run that goes on: the batch size for
good, since steps are counted by it, the others as long as machine and versions are the same."""


DEFAULT_PRESET = {"gray": "classic", "colour": "best"}


@dataclass(frozen=True)
class TrainRequest:
    """What a person asked for."""

    source: Any = None
    layers: tuple[Mapping[str, Any], ...] = ()
    """Settings over the preset's, later ones first in rank: a file's, then those of the command line."""
    preset: str | None = None
    out: Path | None = None
    resume: bool = False
    max_minutes: float | None = None
    quiet: bool = False
    networks: Mapping[str, nn.Module] = field(default_factory=dict)
    """The user's own encoder or decoder, given from Python."""


@dataclass(frozen=True)
class Plan:
    """What will be done."""

    run: Run
    config: Config
    pack: Pack
    device: torch.device
    threads: int
    record: dict[str, Any]
    """What config.json will hold."""
    model: VAE
    objective: Objective
    resumed: bool
    lines: list[str]
    """What was found and what was chosen, for the screen and log.txt."""


def make_plan(request: TrainRequest) -> Plan:
    """Read the data, choose what was left open, and check a run that goes on against its beginning.

    Raises:
        UserError: the first thing that cannot be, in one sentence.
    """
    if request.max_minutes is not None and not request.max_minutes >= 0:
        raise UserError(f"--max-minutes {request.max_minutes} is not possible: it should be 0 or more.")
    before = _saved(request)
    source = before["source"] if before and request.source is None else request.source
    if isinstance(source, (str, Path)):
        source = Path(source).expanduser()
    early = _provisional(request, before)
    device = _device(early.training, before)
    require_outside(request.out or Path("runs"), source)
    pack = open_pack(source, early.data, quiet=request.quiet)
    preset, config = _decide(request, before, pack)
    run = Run(request.out or first_free(Path("runs"), pack.name))
    train = pack.splits["train"]
    model, objective = build(config, pack.shape, len(pack.classes), train.stop - train.start, request.networks)
    threads = before["threads"] if before else config.training.threads or torch.get_num_threads()
    versions = {
        "vaekit": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    machine = {"device": str(device), "hardware": hardware_name(device), "versions": versions}
    same = before is not None and all(before.get(name) == value for name, value in machine.items())
    found = {name: before[name] for name in AUTO_SETTINGS if before and (same or name == "batch_size")}
    record = {
        "format": FORMAT,
        "preset": preset,
        "config": config.model_dump(),
        "shape": list(pack.shape),
        "classes": list(pack.classes),
        "source": str(Path(source).resolve()) if isinstance(source, (str, Path)) else None,
        "seed": config.training.seed,
        **machine,
        "threads": threads,
        **{name: found.get(name, getattr(config.training, name)) for name in AUTO_SETTINGS},
    }
    lines = [
        *pack.summary.splitlines(),
        _choice(request, preset, resumed=before is not None),
    ]
    if "normalised" not in provides(model.likelihood):
        kind = config.likelihood.kind
        lines.append(f"Likelihood {kind}: not over 256 levels, so losses compare with those of {kind} alone")
    if before:
        lines += _changes(run, before, record, pack)
    return Plan(run, config, pack, device, threads, record, model, objective, before is not None, lines)


def require_new_run(plan: Plan) -> None:
    """Refuse, once the run folder is locked, where another process has begun a run in it meanwhile."""
    if not plan.resumed and plan.run.exists():
        raise UserError(_taken(plan.run))


def _saved(request: TrainRequest) -> dict[str, Any] | None:
    """config.json of the run to go on with, or None where a new one starts."""
    if request.out is None:
        if request.resume:
            raise UserError("--resume needs --out RUN: the folder of the run to go on with.")
        return None
    run = Run(request.out)
    if run.exists():
        if not request.resume:
            raise UserError(_taken(run))
        return read_config(run)
    if run.folder.is_file() or (run.folder.is_dir() and {f.name for f in run.folder.iterdir()} - {".lock", "log.txt"}):
        raise UserError(f"{run.folder} is there and is not a run: name another folder with --out.")
    return None


def _taken(run: Run) -> str:
    return f"{run.folder} already holds a run: go on with it by --resume, or name another folder with --out."


def _provisional(request: TrainRequest, record: dict[str, Any] | None) -> Config:
    """A configuration whose data and training settings are final; the default preset is chosen once data were seen.

    Settings that fit no preset are refused here, before any image is read.
    """
    if record:
        return override(load_config(record), *request.layers)
    errors = []
    for preset in [request.preset] if request.preset else DEFAULT_PRESET.values():
        try:
            return resolve(*request.layers, preset=preset)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _decide(request: TrainRequest, record: dict[str, Any] | None, pack: Pack) -> tuple[str, Config]:
    """The preset's name and the whole configuration, now that the data are known."""
    if not record:
        preset = request.preset or DEFAULT_PRESET["gray" if pack.shape[0] == 1 else "colour"]
        return preset, resolve(*request.layers, preset=preset)
    if request.preset not in (None, record["preset"]):
        raise UserError(
            f"The run {request.out} was begun with --preset {record['preset']}, not {request.preset}: "
            "drop --preset, or name another folder with --out."
        )
    old = load_config(record)
    new = override(old, *request.layers)
    for name, (before, after) in differences(old, new).items():
        if name != "epochs":
            raise UserError(
                f"The run {request.out} was begun with --{name} {before}, not {after}: "
                f"drop --{name}, or name another folder with --out."
            )
        if after < before:
            raise UserError(f"The run {request.out} was begun for {before} epochs: --epochs can only be raised.")
    return record["preset"], new


def _choice(request: TrainRequest, preset: str, resumed: bool) -> str:
    if request.preset or resumed:
        return f"Preset: {preset}"
    return f"Preset: {preset}, the default for such images (`vaekit presets` lists others; choose with --preset NAME)"


def _device(settings: TrainingConfig, record: dict[str, Any] | None) -> torch.device:
    """The device of the run so far where it is still there, else the one that was asked for."""
    if record and is_available(torch.device(record["device"])):
        return torch.device(record["device"])
    return resolve_device(settings.device)


def _changes(run: Run, before: dict[str, Any], record: dict[str, Any], pack: Pack) -> list[str]:
    """Refuse other data; say where the machine differs, since the resumed run is then not the same bit for bit."""
    dataset = read_dataset(run)
    if dataset["fingerprint"] != pack.fingerprint:
        raise UserError(
            f"The run {run.folder} was begun on other images ({dataset['source']}, as they were then): "
            "give the same data, or name another folder with --out."
        )
    changed = [
        f"{name} {before.get(name)} -> {record[name]}"
        for name in ("device", "hardware", "threads", "versions")
        if before.get(name) != record[name]
    ]
    return [f"Not the same bit for bit as without the break: {'; '.join(changed)}"] if changed else []
