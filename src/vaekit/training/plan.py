"""From what a user asked for to what will be done: a run, its data, its preset and its configuration."""

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaekit.config.config import Config
from vaekit.config.overrides import differences, override, resolve
from vaekit.config.presets import PRESETS, leaves_noise_open
from vaekit.config.training import TrainingConfig
from vaekit.data.choose_augmentation import MIN_IMAGES, choose_augmentation
from vaekit.data.packs.pack import Pack, open_pack
from vaekit.data.sources.conditions import require_table, width_of
from vaekit.errors import UserError, setting
from vaekit.models.builder import build
from vaekit.models.compatibility import is_valid
from vaekit.models.registry import Capability
from vaekit.models.terms import Objective
from vaekit.models.vae import VAE
from vaekit.runs.folder import Run
from vaekit.runs.metadata import RunMetadata, read_dataset_summary, read_metadata
from vaekit.runs.outputs import first_free
from vaekit.training.request import TrainRequest, with_open_length
from vaekit.training.transfer import Origin, find_origin, source_of, starting_line, with_settings_of
from vaekit.utils.device import hardware_name, is_available, resolve_device
from vaekit.utils.files import require_outside
from vaekit.version import VERSION

AUTO_SETTINGS = ("precision", "batch_size", "compile")
"""Settings that may be "auto". What they come to stands in config.json and holds for a resumed run: the batch
size always, since steps are counted by it, the others as long as machine and versions are the same."""
DEFAULT_PRESET = "best"
SMALL_FOLDER = 1000
"""Training images up to which a folder is small."""
COLOUR_BASE = {
    **{
        name: value
        for name, value in PRESETS["best"].settings.items()
        if name not in ("latent_prior", "latent_noise")
    },
    "latents": 128,
}
"""Under the settings of a preset that leaves noise and networks open, for colour images."""
GRAY_SETTINGS = {"latent_noise": 0.0}
"""Under what is given, for gray images and the default: in 5 minutes of benchmarks/folders, Fashion-MNIST had
KID 0.20 with noise and 0.18 without."""


@dataclass(frozen=True)
class Plan:
    """What will be done."""

    run: Run
    config: Config
    """With every "auto" resolved, once `resolve_auto` has seen it."""
    pack: Pack
    device: torch.device
    metadata: RunMetadata
    """What config.json will hold."""
    model: VAE
    objective: Objective
    resumed: bool
    lines: tuple[str, ...]
    """Images, preset and warnings, for the screen and log.txt."""


def make_plan(request: TrainRequest) -> Plan:
    """Read the data, choose what was left open, and check a resumed run against its beginning."""
    before = _metadata_to_resume(request)
    given = with_open_length(request, resumed=before is not None)
    origin = find_origin(given, before)
    source = _source(given, before, origin)
    request = with_settings_of(origin, given, source) if origin else given
    early = _config_before_data(request, before)
    require_table(early.data, source if isinstance(source, Path) else None, early.conditional)
    device = torch.device(before.device) if before else None
    if device is None or not is_available(device):  # a run stays on its device if that is still there
        device = resolve_device(early.training.device)
    require_outside(request.out or Path("runs"), source)
    pack = open_pack(source, early.data, quiet=request.quiet, run=request.out)
    if origin:
        request = with_settings_of(origin, given, source, pack.shape)
    preset, config = _config_with_data(request, before, pack)
    small = () if before else _small_folder(request, pack)
    if small and preset == DEFAULT_PRESET:
        config, line = _with_augmentation(request, config, pack)
        small = (*small, line) if line else small
    run = Run(request.out or first_free(Path("runs"), pack.name))
    parts = len(pack.classes), pack.count("train"), request.networks, width_of(pack.columns)
    model, objective = build(config, pack.shape, *parts)
    metadata = _make_metadata(preset, config, pack, source, device, before, origin)
    lines = [*pack.summary.splitlines(), f"Preset: {preset}{_about_preset(given, before, origin, pack)}"]
    lines += small
    if origin:
        lines.append(starting_line(origin, model, metadata))
    if Capability.NORMALIZED not in model.likelihood.provides:
        lines.append(
            f"Compare losses only with those of other runs with the likelihood {config.likelihood.kind!r}."
        )
    if before:
        lines += _require_same_run(run, before, metadata, pack)
        lines += _schedule_note(before.config.training, config.training)
    return Plan(run, config, pack, device, metadata, model, objective, before is not None, tuple(lines))


def _source(request: TrainRequest, before: RunMetadata | None, origin: Origin | None) -> Any:
    """The data that are given, or else those of the run that is resumed or started from."""
    source = request.source
    if source is None and before:
        source = before.source
    elif source is None and origin:
        source = source_of(origin)
    if isinstance(source, str) and not source:
        raise UserError("The path of the images is empty.", "Give a folder of images.")
    return Path(source).expanduser() if isinstance(source, (str, Path)) else source


def _about_preset(
    request: TrainRequest, before: RunMetadata | None, origin: Origin | None, pack: Pack
) -> str:
    """What is to be known of the preset, after its name."""
    if before:
        return ""
    if origin and request.preset is None and request.config is None:
        return f", with the settings of {origin.run.folder}"
    if pack.shape[0] > 1 and leaves_noise_open(request.preset or DEFAULT_PRESET):
        return "; for colour images with the networks, noise and schedule of `best`, and 128 latents"
    return "" if request.preset else " (the default). Others: `vaekit presets`."


def require_no_run(run: Run) -> None:
    """Refuse a folder that contains a run already."""
    if run.exists():
        hint = f"Add {setting('resume', True)} to continue it, or choose another {setting('out')}."
        raise UserError(f"{run.folder} already contains a run.", hint)


def _metadata_to_resume(request: TrainRequest) -> RunMetadata | None:
    """The metadata of the run to resume; None for a new run."""
    if request.out is None:
        if request.resume:
            message = f"{setting('resume', True)} needs the folder of the run to resume."
            raise UserError(message, f"Add {setting('out')}.")
        return None
    run, folder = Run(request.out), request.out
    if request.resume and run.exists():
        return read_metadata(run)
    require_no_run(run)
    if folder.is_file() or (folder.is_dir() and {f.name for f in folder.iterdir()} - {".lock", "log.txt"}):
        raise UserError(f"{folder} exists and is not a run.", f"Choose another {setting('out')}.")
    return None


def _config_before_data(request: TrainRequest, before: RunMetadata | None) -> Config:
    """The configuration before it is known what the images are: its data and training settings are final.

    Settings that do not fit the preset are refused here, before any image is read.
    """
    if before:
        return override(before.config, *request.settings)
    return resolve(*request.settings, preset=request.preset or DEFAULT_PRESET)


def _config_with_data(request: TrainRequest, before: RunMetadata | None, pack: Pack) -> tuple[str, Config]:
    if not before:
        preset = request.preset or DEFAULT_PRESET
        base = COLOUR_BASE if pack.shape[0] > 1 and leaves_noise_open(preset) else {}
        given: tuple[Mapping[str, Any], ...] = request.settings
        if pack.shape[0] == 1 and preset == DEFAULT_PRESET:
            given = GRAY_SETTINGS, *given
        config = resolve(*given, preset=preset, base=base).with_latents(pack.shape)
        if (base or request.preset is None) and not is_valid(config):  # the default gives way
            layers = ({"likelihood": {"sigma": "learned"}}, *given)
            other = resolve(*layers, preset=preset, base=base)
            if is_valid(other):
                config = other.with_latents(pack.shape)
        return preset, config
    config = override(before.config, *request.settings)
    changes = differences(before.config, config)
    if request.preset not in (None, before.preset):
        changes = {"preset": (before.preset, request.preset), **changes}
    for flag, (old, new) in changes.items():
        name, started = flag.replace("-", "_"), f"{request.out} was started with"
        if name not in ("epochs", "flow_matching.steps"):
            hint = f"Omit {setting(name)}, or choose another {setting('out')}."
            raise UserError(f"{started} {setting(name, old)}, not {new}.", hint)
        if new < old:
            raise UserError(f"{started} {setting(name, old)}, which cannot be lowered.")
    return before.preset, config


def _small_folder(request: TrainRequest, pack: Pack) -> tuple[str, ...]:
    """What to expect of few images, in a line."""
    count = pack.count("train")
    if count > SMALL_FOLDER:
        return ()
    expect = "new images will be close to these, and many will be poor"
    if count >= MIN_IMAGES:
        expect = "expect variations of them rather than new kinds of images"
    return (f"{count:,} training images are few: {expect}. More images help most.",)


def _with_augmentation(request: TrainRequest, config: Config, pack: Pack) -> tuple[Config, str]:
    """The configuration with the flips and shifts that suit the images, where none are given, and a line."""
    if any(
        name in {**layer, **layer.get("data", {})} for layer in request.settings for name in ("flip", "crop")
    ):
        return config, ""
    chosen = choose_augmentation(np.asarray(pack.images[pack.splits["train"]]))
    flip = "flipped at random, since mirror images look alike" if chosen.flip else "not flipped"
    if chosen.flip and pack.columns:
        chosen, flip = replace(chosen, flip=False), "not flipped, since conditions may mean left or right"
    crop = f"shifted by up to {chosen.crop} pixels" if chosen.crop else "not shifted"
    change = f"{setting('flip', not chosen.flip)}, {setting('crop', 0 if chosen.crop else 2)}"
    line = f"Training images are {flip}, and {crop}. To change that: {change}."
    return override(config, {"flip": chosen.flip, "crop": chosen.crop}), line


def _make_metadata(
    preset: str,
    config: Config,
    pack: Pack,
    source: Any,
    device: torch.device,
    before: RunMetadata | None,
    origin: Origin | None,
) -> RunMetadata:
    """What config.json will hold. Choices of a resumed run are reused as AUTO_SETTINGS says."""
    versions = {"vaekit": VERSION, "python": platform.python_version()}
    versions |= {"torch": torch.__version__, "numpy": np.__version__}
    machine: dict[str, Any] = {"device": str(device), "hardware": hardware_name(device), "versions": versions}
    same = before is not None and all(getattr(before, name) == value for name, value in machine.items())
    chosen: dict[str, Any] = {name: getattr(config.training, name) for name in AUTO_SETTINGS}
    if before:
        chosen |= {name: getattr(before, name) for name in AUTO_SETTINGS if same or name == "batch_size"}
    from_run = str(origin.run.folder.resolve()) if origin else before and before.from_run
    return RunMetadata(
        preset=preset,
        config=config,
        shape=pack.shape,
        classes=pack.classes,
        conditions=pack.columns,
        source=str(Path(source).resolve()) if isinstance(source, (str, Path)) else None,
        from_run=from_run,
        seed=config.training.seed,
        threads=before.threads if before else config.training.threads or torch.get_num_threads(),
        **machine,
        **chosen,
    )


def _schedule_note(before: TrainingConfig, now: TrainingConfig) -> list[str]:
    """What more epochs do to a learning rate that falls with them."""
    if now.schedule != "cosine" or now.epochs <= before.epochs:
        return []
    share = (1 + math.cos(math.pi * before.epochs / now.epochs)) / 2
    return [
        f"The cosine schedule now ends in epoch {now.epochs:,}: the learning rate in epoch {before.epochs:,} "
        f"is {share * now.learning_rate:.2g} instead of 0."
    ]


def _require_same_run(run: Run, before: RunMetadata, now: RunMetadata, pack: Pack) -> list[str]:
    """Refuse other data; a line where the machine differs."""
    dataset = read_dataset_summary(run)
    if dataset.fingerprint != pack.fingerprint:
        message = f"{run.folder} was trained on other images ({dataset.source}, as they were then)"
        if not dataset.contents:
            message += ", or they were read by version 0.1.0, which split and ordered them in another way"
        start = f"start from its weights with {setting('from_run', run.folder)} and another {setting('out')}"
        raise UserError(f"{message}.", f"Give the same data, or {start}.")
    changed = [
        f"{name} {getattr(before, name)} -> {getattr(now, name)}"
        for name in ("device", "hardware", "threads", "versions")
        if getattr(before, name) != getattr(now, name)
    ]
    text = f"Resuming on a different setup ({'; '.join(changed)}): results will differ in the last bits."
    return [text] if changed else []
