"""vaekit from Python: train a model, or load one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from vaekit.config.keywords import TrainSettings
from vaekit.data.sources.torch_datasets import is_dataset
from vaekit.errors import Interrupted, UserError
from vaekit.export.hub import download, is_address
from vaekit.runs.folder import Run
from vaekit.runs.loaded import load_model
from vaekit.runs.metadata import Track
from vaekit.trained_model import TrainedModel
from vaekit.training.callbacks import Callback
from vaekit.training.request import TrainRequest
from vaekit.training.session import run_training


def train(
    data: Any = None,
    *,
    preset: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    from_run: str | Path | None = None,
    minutes: float | None = None,
    max_minutes: float | None = None,
    report: bool = True,
    callbacks: Sequence[Callback] | None = None,
    track: Track | None = None,
    quiet: bool = False,
    **settings: Unpack[TrainSettings],
) -> TrainedModel:
    """Train a VAE and return it with the weights of its best epoch.

    Args:
        data: a folder, an .npz or .npy file, a folder of IDX files, a uint8 array [N, H, W] or [N, H, W, C]
            (or floats from 0 to 1), a pair of such an array and labels [N], a torch Dataset or DataLoader, or
            None for the bundled sample, or with `from_run` for the images of that run. It is only read.
        preset: a name of `vaekit presets`; None for "best".
        out: the run folder; None takes a new one in runs/.
        resume: continue the run in `out`.
        from_run: the folder of a run to start from, or of diffusers' AutoencoderKL: its weights are taken
            where names and shapes fit, those of classes by name, and without `preset` its settings, which
            `settings` override, except the length (epochs, steps per epoch and steps of flow matching). It is
            only read.
        minutes: time for all of it, from which the number of epochs follows; None for 20, if the preset
            leaves epochs open.
        max_minutes: time limit; training stops at the end of the epoch in which it is reached.
        report: write report.html at the end.
        callbacks: what happens besides training and saving, see `vaekit.training.callbacks`. None for
            pictures, loss graph and fitted prior (`vaekit.training.artifacts.default_callbacks`), [] for
            nothing.
        track: log metrics, settings and pictures to "tensorboard", "wandb" or "mlflow" as well. None for the
            tracker of a resumed run, if it has one. A tracker that fails is a warning.
        quiet: print nothing.
        settings: any setting by the name of its flag (epochs=50, size=64). A component is a dictionary
            (objective={"beta": 4}) or a kind (encoder="mlp"); encoder and decoder may be torch modules: the
            encoder maps images [B, C, H, W] to features [B, F], the decoder latents [N, D] to [N, outputs, H,
            W], with as many outputs as the likelihood needs; in a conditional model both get labels [B], or
            conditions [B, K], as well.

    Raises:
        UserError: something about the request is wrong, no weights of `from_run` fit, or the package of the
            tracker is not installed.
        Interrupted: a KeyboardInterrupt, after saving everything; `resume=True` continues.
    """
    folder = Path(out).expanduser() if out is not None else None
    given: dict[str, Any] = dict(settings)
    networks: dict[str, nn.Module] = {}
    for slot in ("encoder", "decoder"):
        network = given.get(slot)
        if isinstance(network, nn.Module):
            networks[slot], given[slot] = network, {"kind": "own", "name": type(network).__name__}
        elif callable(network):
            name = getattr(network, "__name__", network)
            raise UserError(f"The {slot} {name!r} is not a torch module.", "Give an instance.")
    request = TrainRequest(
        data,
        (given,),
        preset,
        folder,
        resume,
        minutes,
        max_minutes,
        quiet,
        networks,
        report,
        from_run=Path(from_run).expanduser() if from_run is not None else None,
        track=track,
    )
    interrupted = None
    try:
        folder = run_training(request, callbacks).folder
    except Interrupted as error:
        if error.run is None:
            raise
        folder, interrupted = error.run, error
    device = given.get("device", "auto")
    trained = TrainedModel(load_model(Run(folder), networks, device, None if is_dataset(data) else data))
    if report:
        trained.report(quiet=quiet)
    if interrupted:
        raise interrupted
    return trained


def load(
    run: str | Path,
    *,
    device: str | torch.device = "auto",
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> TrainedModel:
    """Load the trained model of a run folder, or of the Hugging Face Hub.

    Nothing that is loaded is executed. A model of the Hub is downloaded into its cache, where nothing is
    written afterwards: `TrainedModel.save` makes a folder of it.

    Args:
        run: the run folder, or "hf:USER/NAME" or "hf:USER/NAME@REVISION", which needs huggingface_hub.
        device: where it computes: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" or "mps".
        encoder: for a model that was trained with a custom encoder: a module made as then. Its weights are
            filled in.
        decoder: likewise.

    Raises:
        UserError: no run there, a damaged one, or no such device.
        OSError: the Hub cannot be reached.
    """
    folder = download(str(run)) if is_address(run) else Path(run).expanduser()
    networks = {"encoder": encoder, "decoder": decoder}
    given = {slot: module for slot, module in networks.items() if module is not None}
    return TrainedModel(load_model(Run(folder), given, device))
