"""Weights and checkpoints of a run: tensors in safetensors, the rest in JSON, no pickle.

A checkpoint is `checkpoints/step_00001234/` with model.safetensors (raw.* and ema.* weights),
optimizer.safetensors, state.json and manifest.json with the SHA-256 of the others. The folder gets its name
only when all of it is on the disk.
"""

import json
import math
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from vaekit.errors import UserError, setting, spelled
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.flow_matching import FlowMatching
from vaekit.runs.folder import Run
from vaekit.utils.files import atomic_file, atomic_folder, sha256
from vaekit.utils.logging import log

MAX_CHECKPOINTS = 3
"""Number of newest checkpoints that are not deleted, besides the best."""
OBSOLETE = frozenset({"latent_scale"})
"""Tensors in weights of vaekit 0.1.0 that models no longer have."""
BYTES_PER_NUMBER = 4
MAX_GROWTH, SMALL_MODEL = 4, 1 << 30
"""A model takes at most so many times the bytes of its weights while it is built, and this number more."""
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Snapshot:
    """A copy of the training state."""

    raw: Tensors
    ema: Tensors
    optimizer: Tensors
    state: dict[str, Any]
    """Everything that is not a tensor, as JSON: step, epoch, best_step, ..."""

    @property
    def step(self) -> int:
        return int(self.state["step"])


def copied(tensors: Mapping[str, Tensor]) -> Tensors:
    """Contiguous copies on the CPU."""
    layout = torch.contiguous_format
    return {name: t.detach().to("cpu", copy=True, memory_format=layout) for name, t in tensors.items()}


def optimizer_tensors(optimizer: Optimizer) -> Tensors:
    """An optimizer's state as named tensors: "3.exp_avg" belongs to the parameter with index 3."""
    states = optimizer.state_dict()["state"].items()
    return {f"{i}.{name}": torch.as_tensor(v) for i, state in states for name, v in state.items()}


def restore_optimizer(optimizer: Optimizer, tensors: Tensors) -> None:
    """Load the tensors of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, _, field = name.partition(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:  # fused kernels need the memory order of the parameter
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(index), {})[field] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def write_checkpoint(run: Run, snapshot: Snapshot) -> None:
    """Write a checkpoint atomically, then delete those that are neither among the newest nor the best."""
    folder = run.checkpoints / f"step_{snapshot.step:08d}"
    if folder.exists() and not _is_intact(folder):
        shutil.rmtree(folder)  # a damaged one, skipped when the run was resumed
    weights = {f"raw.{name}": tensor for name, tensor in snapshot.raw.items()}
    weights |= {f"ema.{name}": tensor for name, tensor in snapshot.ema.items()}
    with _explain_write_errors(folder), atomic_folder(folder) as temporary:
        save_file(weights, temporary / "model.safetensors")
        save_file(snapshot.optimizer, temporary / "optimizer.safetensors")
        (temporary / "state.json").write_text(json.dumps(snapshot.state, indent=2) + "\n")
        sums = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps({"sha256": sums}, indent=2) + "\n")
    best = run.checkpoints / f"step_{snapshot.state.get('best_step') or 0:08d}"
    old = [each for each in sorted(run.checkpoints.glob("step_*"))[:-MAX_CHECKPOINTS] if each != best]
    for unneeded in (*old, *run.checkpoints.glob(".step_*")):  # the latter are of a crash
        shutil.rmtree(unneeded, ignore_errors=True)


def newest_checkpoint(run: Run) -> Snapshot | None:
    """The newest intact checkpoint; None if there is none."""
    for folder in sorted(run.checkpoints.glob("step_*"), reverse=True):
        if _is_intact(folder):
            weights = load_file(folder / "model.safetensors")
            optimizer = load_file(folder / "optimizer.safetensors")
            state = json.loads((folder / "state.json").read_text())
            return Snapshot(_with_prefix(weights, "raw."), _with_prefix(weights, "ema."), optimizer, state)
        log.info(f"{folder} is damaged and is skipped")
    return None


def _with_prefix(tensors: Tensors, prefix: str) -> Tensors:
    selected = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in selected.items() if name not in OBSOLETE}


def write_weights(path: Path, weights: Tensors) -> None:
    with _explain_write_errors(path), atomic_file(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary)


def write_prior(
    run: Run, prior: FittedPrior | FlowMatching | None, metadata: Mapping[str, Any], weights: str
) -> None:
    """Write a fitted prior, with metadata as JSON in the file's header; None deletes an earlier one.

    `weights` is the SHA-256 of the weights whose latents it was fitted to.
    """
    if prior is None:
        run.latent_prior.unlink(missing_ok=True)
        return
    header = {"about": json.dumps({**prior.metadata, **metadata, "weights": weights}, indent=2)}
    with _explain_write_errors(run.latent_prior), atomic_file(run.latent_prior) as temporary:
        save_file(copied(prior.state_dict()), temporary, metadata=header)


def load_prior(run: Run, weights: str) -> FittedPrior | FlowMatching | None:
    """The prior fitted to the latents of the weights with this SHA-256; None if there is none."""
    if not run.latent_prior.exists():
        return None
    try:
        with safe_open(run.latent_prior, "pt") as file:
            metadata = json.loads(file.metadata()["about"])
        if metadata["weights"] != weights:
            return None
        kinds: dict[str, type[FlowMatching]] = {"flow_matching": FlowMatching}
        prior = kinds.get(metadata["kind"], FittedPrior)(metadata)
        prior.load_state_dict(load_file(run.latent_prior))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError):
        command = f"vaekit fit-prior {shlex.quote(str(run.folder))}"
        raise UserError(f"{run.latent_prior} is damaged.", f"Fit it again: `{command}`.") from None
    return prior.eval().requires_grad_(False)


@contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    """Raise an error that names the file, the reason and the fix."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        hint = f"Free some space, then continue from the last checkpoint with {setting('resume', True)}."
        raise OSError(spelled(f"Cannot write {path} ({reason}). {hint}")) from error


def read_weights(path: Path) -> Tensors:
    """The tensors of a file of weights; UserError if it does not exist or is damaged."""
    if not path.is_file():
        hint = f"Continue training with {setting('resume', True)}."
        raise UserError(f"{path} does not exist: no epoch of the run is finished.", hint)
    try:
        return _with_prefix(load_file(path), "")
    except (SafetensorError, OSError) as error:
        raise UserError(f"Cannot read {path} ({error}).", "Restore it from a copy.") from None


class _Limit(TorchDispatchMode):
    """Refuses new tensors that take more than so many bytes together, before they are made."""

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], (list, tuple)) and all(isinstance(n, int) for n in args[0]):
            self.left -= BYTES_PER_NUMBER * math.prod(args[0])
            if self.left < 0:
                raise MemoryError
        return func(*args, **(kwargs or {}))


@contextmanager
def limited_to_weights(path: Path) -> Iterator[None]:
    """Build the model of a file of weights; UserError if it is much larger than the file.

    Settings of a few bytes can describe a model that fills the memory.
    """
    if not path.is_file():  # which `load_weights` says
        yield
        return
    size = path.stat().st_size
    try:
        with _Limit(MAX_GROWTH * size + SMALL_MODEL):
            yield
    except MemoryError:
        message = f"{path} has {size:,} bytes, and the model of its config.json is far larger."
        raise UserError(message, "Restore both files from a copy.") from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of `model` from a safetensors file; UserError if it does not exist or match."""
    weights = read_weights(path)
    if difference := _difference(model.state_dict(), weights):
        hint = "Load it with the vaekit version, and any custom modules, it was trained with."
        raise UserError(f"{path} does not match this model ({difference}).", hint)
    model.load_state_dict(weights)


def _difference(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """The first tensor that is missing, unexpected or of another shape; empty if there is none."""
    for name in [*expected, *tensors]:
        if name not in tensors:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is unexpected"
        if expected[name].shape != tensors[name].shape:
            return f"{name} is {[*tensors[name].shape]}, not {[*expected[name].shape]}"
    return ""


def _is_intact(folder: Path) -> bool:
    try:
        sums = json.loads((folder / "manifest.json").read_text())["sha256"]
        complete = set(sums) >= {"model.safetensors", "optimizer.safetensors", "state.json"}
        return complete and all(sha256(folder / name) == digest for name, digest in sums.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False
