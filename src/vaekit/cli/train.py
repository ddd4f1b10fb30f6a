"""`vaekit train`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vaekit.cli.flags import COMMON, OTHER, CliOverrides
from vaekit.errors import UserError


def train(
    data: Annotated[str | None, Parameter(help="Folder of images, .npz or .npy file, or folder of IDX files.")] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(group=COMMON, help="Run folder (default: a new one in runs/).")] = None,
    preset: Annotated[
        str | None, Parameter(group=COMMON, help="Named model to start from; `vaekit presets` lists them.")
    ] = None,
    resume: Annotated[
        bool,
        Parameter(group=COMMON, negative=(), help="Continue the run in --out, or start it if it does not exist."),
    ] = False,
    max_minutes: Annotated[
        float | None,
        Parameter(group=COMMON, help="Time limit for training, in minutes (checked after each epoch)."),
    ] = None,
    config: Annotated[
        Path | None,
        Parameter(group=OTHER, help="TOML file with settings; overrides the preset, is overridden by flags."),
    ] = None,
    settings: CliOverrides | None = None,
) -> None:
    """Train a VAE on DATA (default: a bundled sample of 10,000 Fashion-MNIST images).

    For example:
      vaekit train photos/ --out runs/photos
      vaekit train photos/ --size 32 --max-minutes 10
      vaekit train --resume --out runs/photos --epochs 100
    """
    if data is not None and "://" in data:
        raise UserError(f"{data} is not a local file.", "Download it, and give the folder that it is in.")
    layers = [*([_toml(config)] if config else []), settings or {}]
    from vaekit.api import load
    from vaekit.training.plan import TrainRequest
    from vaekit.training.session import run_training

    run = run_training(TrainRequest(data, tuple(layers), preset, out, resume, max_minutes))
    load(run.folder).report()
    print(f"Wrote {run.folder}: report.html, loss.png, samples/, reconstructions/, model.safetensors")
    print(f"New images: vaekit generate {shlex.quote(str(run.folder))} -n 64")


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"--config {path} cannot be read: name a TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is not TOML: {error}.") from None
