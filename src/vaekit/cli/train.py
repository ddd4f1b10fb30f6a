"""`vaekit train`."""

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from vaekit.cli.common import load_model, quoted, say
from vaekit.cli.flags import COMMON, OTHER, CliOverrides
from vaekit.errors import Interrupted, UserError, spelled
from vaekit.runs.folder import Run
from vaekit.utils.logging import console_logging, status
from vaekit.version import VERSION


def train(
    data: str | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(group=COMMON)] = None,
    preset: Annotated[str | None, Parameter(group=COMMON)] = None,
    resume: Annotated[bool, Parameter(group=COMMON, negative=())] = False,
    from_run: Annotated[Path | None, Parameter("--from", group=COMMON)] = None,
    minutes: Annotated[float | None, Parameter(group=COMMON)] = None,
    max_minutes: Annotated[float | None, Parameter(group=COMMON)] = None,
    config: Annotated[Path | None, Parameter(group=OTHER)] = None,
    plan: Annotated[bool, Parameter(group=COMMON, negative=())] = False,
    track: Annotated[Literal["tensorboard", "wandb", "mlflow"] | None, Parameter(group=OTHER)] = None,
    no_report: Annotated[bool, Parameter(group=OTHER, negative=())] = False,
    verbose: Annotated[bool, Parameter(group=OTHER, negative=())] = False,
    settings: CliOverrides | None = None,
) -> None:
    """Train a VAE on DATA (default: a bundled sample of 10,000 Fashion-MNIST images).

    For example:
      vaekit train photos/ --out runs/photos
      vaekit train photos/ --plan
      vaekit train photos/ --size 32 --max-minutes 10
      vaekit train --resume --out runs/photos --epochs 100
      vaekit train more/ --from runs/photos

    Args:
        data: Folder of images, .zip or .tar file of one, .npz or .npy file, or folder of IDX files. With
            --resume or --from, by default the images of that run.
        out: Run folder (default: a new one in runs/).
        preset: Named model to start from; `vaekit presets` lists them.
        resume: Continue the run in --out, or start it if it does not exist.
        from_run: Run to start from, by its weights and settings, or folder of diffusers' AutoencoderKL.
            Weights are taken where names and shapes fit; settings, but not the length, unless --preset or
            --config is given, and flags override them.
        minutes: Time for all of it, from which the number of epochs follows (default, if the preset leaves
            epochs open: the time limit, or 20).
        max_minutes: Time limit for training, in minutes (checked after each epoch).
        config: TOML file with settings, or a run whose settings to use. Flags override them.
        plan: Only show what would be trained: classes, splits, skipped files, and a sheet of images.
        track: Also log metrics, settings and pictures to this tracker (default for a resumed run: the one it
            began with).
        no_report: Do not write report.html at the end.
        verbose: Also show details, such as the layers of the networks.
    """
    if data is not None and "://" in data:
        raise UserError(f"{data} is not a local file.", "Download it, and give the folder that it is in.")
    file, file_preset = _read_settings(config) if config else (None, None)
    say(f"vaekit {VERSION}")
    exists = out is not None and Run(out).exists()
    if resume and out is not None and not exists:
        say(f"There is no run in {out} yet: starting one.")
    say(f"Resuming {out} ..." if resume and exists else f"Reading {_named(data, from_run)} ...")

    with console_logging(verbose=verbose):
        with status("Loading PyTorch"):
            from vaekit.training.request import TrainRequest
            from vaekit.training.session import run_training

        request = TrainRequest(
            data,
            (settings or {},),
            preset or file_preset,
            out,
            resume,
            minutes,
            max_minutes,
            report=not no_report,
            config=file,
            from_run=from_run,
            track=track,
        )
        if plan:
            from vaekit.training.dry_run import dry_run

            lines, sheet = dry_run(request)
            for line in lines:
                say(spelled(line))
            say(f"Wrote {sheet}. Nothing was trained: omit --plan for that.")
            return
        folder, interrupted = _train(lambda: run_training(request).folder)
        say(f"Done. {_results(folder, interrupted) if request.report else f'The results are in {folder}.'}")
    say(f"More images: vaekit generate {quoted(folder)} -n 64")
    if interrupted:
        raise interrupted


def _train(train_run: Callable[[], Path]) -> tuple[Path, Interrupted | None]:
    """Train; the run folder, and the interruption after which there is a model to report on, if any."""
    try:
        return train_run(), None
    except Interrupted as error:
        if error.run is None:
            raise
        return error.run, error


def _results(folder: Path, interrupted: Interrupted | None) -> str:
    """Write the report, and say where it is."""
    try:
        return f"Open {load_model(folder).report()} to see the results."
    except KeyboardInterrupt:
        if interrupted:
            raise interrupted from None
        raise


def _named(data: str | None, from_run: Path | None) -> str:
    """The data as a message names them."""
    return data or (f"the images of {from_run}" if from_run else "the bundled sample")


def _read_settings(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """The settings in a TOML file, or in the config.json of a run with the run's preset."""
    path = path / "config.json" if path.is_dir() else path
    kind, parse = ("JSON", json.loads) if path.suffix == ".json" else ("TOML", tomllib.loads)
    try:
        record = parse(path.read_text(encoding="utf-8-sig"))  # editors may write a byte order mark
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}).", option="config") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid {kind}: {str(error).rstrip('.')}.", option="config") from None
    if kind == "TOML":
        return record, None
    if not (isinstance(record, Mapping) and isinstance(record.get("config"), Mapping)):
        raise UserError(f"{path} is not the config.json of a run.", option="config")
    return record["config"], record.get("preset")
