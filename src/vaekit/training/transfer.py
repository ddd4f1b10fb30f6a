"""Starting from an existing run: its settings, and those of its weights that fit the new model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, log2
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaekit.config.config import SLOTS
from vaekit.data.packs.pack import BUNDLED
from vaekit.errors import UserError, setting
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.vae import VAE
from vaekit.runs.checkpoint import Tensors, read_weights
from vaekit.runs.diffusers import is_diffusers_folder, read_autoencoder
from vaekit.runs.folder import Run
from vaekit.runs.inputs import OF_TRAINING
from vaekit.runs.metadata import RunMetadata, read_dataset_summary, read_metadata
from vaekit.training.request import TrainRequest

LISTED = 3
"""Names of tensors that a message lists, at most."""
NETWORK = "network."
"""Beginning of the names of the weights of the second stage."""
GROUP_EMBEDDING = f"{NETWORK}embedding.label.weight"
"""Embeddings of classes, then of groups of similar images, then of all images."""
Rows = list[tuple[int, int]]
"""Pairs of a row of the new tensor and the row of the old one that it takes."""


@dataclass(frozen=True)
class Origin:
    """The run that a new one starts from."""

    run: Run
    metadata: RunMetadata
    weights: Tensors
    latent_prior: Tensors
    """The network of its second stage; empty without one."""


@dataclass
class Match:
    """Which tensors of another model fit a model."""

    taken: Tensors = field(default_factory=dict)
    """The new values by name."""
    left: dict[str, str] = field(default_factory=dict)
    """What is not taken, or not all of it, and why, by the name of the tensor."""
    numbers: int = 0
    """Weights taken."""
    tensors: int = 0
    """Tensors of the new model, and the number of its weights."""
    total: int = 0

    def line(self, opening: str) -> str:
        """How many tensors and weights are taken, and which are not."""
        if not self.left:
            return f"{opening}: all {self.tensors} tensors ({_amount(self.numbers, self.total)})."
        count = f"{self.tensors - len(self.left)} of {self.tensors} tensors"
        return f"{opening}: {count} ({_amount(self.numbers, self.total)}). Not taken: {self.reasons}."

    @property
    def reasons(self) -> str:
        """The first tensors that are not taken, with the reasons."""
        items = list(dict.fromkeys(self.left.values()))
        more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
        return ", ".join(items[:LISTED]) + more


# --- Settings -----------------------------------------------------------------------------------------------


def read_origin(folder: Path) -> Origin:
    """Read a run or a folder of diffusers; UserError if it is neither, damaged, or has no weights yet."""
    run = Run(folder)
    if is_diffusers_folder(folder):
        return Origin(run, *read_autoencoder(folder), {})
    metadata, weights = read_metadata(run), read_weights(run.weights)
    stages = [path for path in (run.second_stage.weights, run.latent_prior) if path.is_file()]
    prior = read_weights(stages[0]) if stages else {}
    return Origin(run, metadata, weights, {k: v for k, v in prior.items() if k.startswith(NETWORK)})


def find_origin(request: TrainRequest, before: RunMetadata | None) -> Origin | None:
    """The run that a new run starts from, if any; a resumed one, which has started, can name no other run."""
    if request.from_run is None:
        return None
    if before is None:
        return read_origin(request.from_run)
    if before.from_run != str(request.from_run.resolve()):
        started = f"from {before.from_run}" if before.from_run else "without another run"
        raise UserError(
            f"{request.out} was started {started}, not from {request.from_run}.",
            f"Omit {setting('from_run')}, or choose another {setting('out')}.",
        )
    return None


def source_of(origin: Origin) -> str | None:
    """The path of the images of a run; None for the bundled sample."""
    if not origin.run.dataset.exists():
        raise UserError(f"{origin.run.folder} names no training images.", "Give the images to train on.")
    source = origin.metadata.source
    if source is None and read_dataset_summary(origin.run).source != BUNDLED:
        why = "they were given in memory or the model was published without them"
        message = f"The training images are not in {origin.run.folder}: {why}."
        raise UserError(message, "Give the images to train on.")
    return source


def with_settings_of(
    origin: Origin, request: TrainRequest, source: Any, shape: tuple[int, int, int] | None = None
) -> TrainRequest:
    """The request with the preset of the run and its settings under the given ones, unless the request names
    a preset or a configuration.

    Not taken are the length, choices of the machine and, for other data, the settings that name files. A
    latent image is as large as the `shape` (C, H, W) of the images needs for the same number of pixels each.
    """
    if request.preset is not None or request.config is not None:
        return request
    metadata = origin.metadata
    config = metadata.config.model_dump()
    for name in ("epochs", "steps_per_epoch", "device", "threads"):
        del config["training"][name]
    del config["flow_matching"]["steps"]
    is_path = isinstance(source, (str, Path))
    if not (is_path and str(Path(source).expanduser().resolve()) == metadata.source):
        config["data"] = {name: value for name, value in config["data"].items() if name not in OF_TRAINING}
    channels, *size = metadata.config.latent_shape
    if shape and size and shape[1:] != metadata.shape[1:]:
        factor = 2 ** round(log2(max(metadata.shape[1:]) / max(size)))
        config["latents"] = f"{channels}x{ceil(shape[1] / factor)}x{ceil(shape[2] / factor)}"
    return replace(request, config=config, preset=metadata.preset)


# --- Weights ------------------------------------------------------------------------------------------------


def starting_line(origin: Origin, model: VAE, metadata: RunMetadata) -> str:
    """What a new model takes of a run, in a line.

    Raises:
        UserError: no weights of encoder and decoder fit.
    """
    match = _match_model(origin, model, metadata)
    weights = [name for name in match.taken if name.split(".")[0] in ("encoder", "decoder")]
    if not any(match.taken[name].ndim > 1 and name not in _embeddings(model) for name in weights):
        raise UserError(
            f"No weights of {origin.run.folder} fit this model. Not taken: {match.reasons}.",
            f"Omit the settings in which the model differs, or {setting('from_run')}.",
        )
    return match.line(f"Starting from {origin.run.folder}")


def take_weights(models: Sequence[VAE], metadata: RunMetadata) -> None:
    """Give copies of a new model the weights of the run that it starts from, if any."""
    if metadata.from_run is not None:
        origin = read_origin(Path(metadata.from_run))
        _assign(models, _match_model(origin, models[0], metadata))


def take_second_stage(models: Sequence[FlowMatching], metadata: RunMetadata) -> list[str]:
    """Give copies of a new second stage the network of the run that it starts from, if that has one, and
    return a line on it. Units and groups stay those of the new images."""
    if metadata.from_run is None or not Run(Path(metadata.from_run)).exists():
        return []
    origin = read_origin(Path(metadata.from_run))
    if not origin.latent_prior:
        return []
    old, new = (embedding_rows(label_names(each)) for each in (origin.metadata, metadata))
    rows = [(new[name], old[name]) for name in new if name in old]
    match = _match(models[0], NETWORK, origin.latent_prior, {GROUP_EMBEDDING: rows})
    if not models[0].conditions:
        match.left[GROUP_EMBEDDING] = f"{GROUP_EMBEDDING} (groups of other images)"
    _assign(models, match)
    return [match.line(f"Flow matching starts from {origin.run.folder}")]


def label_names(metadata: RunMetadata) -> tuple[str, ...]:
    """What the rows of an embedding of labels stand for: classes, or columns of a table and their values."""
    names: list[str] = []
    for column in metadata.conditions:
        one_each = column.width == len(column.values)
        names += [f"{column.name}={value}" for value in column.values] if one_each else [column.name]
    return tuple(names) or metadata.classes


def embedding_rows(classes: Sequence[str]) -> dict[str | None, int]:
    """The rows of the embedding of the second stage that have a meaning for other images: by the name of the
    class, and for all images by None."""
    return {name: row for row, name in enumerate(classes)} | {None: -1}


def _match_model(origin: Origin, model: VAE, metadata: RunMetadata) -> Match:
    """Which tensors of a run fit the model of a new run."""
    before, names = label_names(origin.metadata), label_names(metadata)
    numbers = {name: row for row, name in enumerate(before)}
    rows = [(row, numbers[name]) for row, name in enumerate(names) if name in numbers]
    old, new = origin.metadata.config, metadata.config
    skipped: dict[str, str] = {}
    for slot in SLOTS:
        first, now = getattr(old, slot), getattr(new, slot)
        if first.kind != now.kind:
            skipped[f"{slot}."] = f"{slot} ({first.kind}, not {now.kind})"
        elif slot == "likelihood" and first != now:  # its noise level is a setting
            skipped["likelihood."] = "likelihood (other settings)"
    if "prior.labels" in origin.weights and before != names:
        skipped["prior.pseudo_inputs"] = "prior.pseudo_inputs (other classes)"
    skipped["condition_rows"] = "condition_rows (of other images)"
    match = _match(model, "", origin.weights, dict.fromkeys(_embeddings(model), rows), skipped)
    _leave_buffers(match, model)
    return match


def _match(
    model: nn.Module,
    prefix: str,
    weights: Tensors,
    rows: Mapping[str, Rows],
    skipped: Mapping[str, str] | None = None,
) -> Match:
    """Match tensors by name and shape, and those of `rows` row by row.

    Args:
        model: the new model.
        prefix: beginning of the names of its tensors that count.
        weights: the tensors of the other model.
        rows: rows to take, by the name of the tensor.
        skipped: reasons why nothing is taken, by the beginning of the name.
    """
    match = Match()
    for name, new in model.state_dict().items():
        if not name.startswith(prefix):
            continue
        match.tensors, match.total = match.tensors + 1, match.total + new.numel()
        old = weights.get(name)
        reason = next((text for start, text in (skipped or {}).items() if name.startswith(start)), None)
        if reason is not None:
            match.left[name] = reason
        elif old is None:
            match.left[name] = f"{name} (not in the run)"
        elif name in rows and old.shape[1:] == new.shape[1:]:
            match.taken[name] = tensor = new.detach().cpu().clone()
            for row, old_row in rows[name]:
                tensor[row] = old[old_row]
            match.numbers += len(rows[name]) * (new.numel() // len(new))
            if len(rows[name]) < len(new):
                match.left[name] = f"{name} ({len(new) - len(rows[name])} of {len(new)} labels are new)"
        elif old.shape != new.shape:
            match.left[name] = f"{name} (shape {_shape(old)}, not {_shape(new)})"
        else:
            match.taken[name] = old
            match.numbers += new.numel()
    return match


def _leave_buffers(match: Match, model: VAE) -> None:
    """Leave the buffers of a component, such as its mean image, to the new images where its parameters do not
    all fit: they belong together."""
    parameters = {name for name, _ in model.named_parameters()}
    incomplete = {name.split(".")[0] for name in match.left if name in parameters and name not in match.taken}
    for name in [name for name in match.taken if name not in parameters]:
        if name.split(".")[0] in incomplete:
            match.numbers -= match.taken.pop(name).numel()
            match.left[name] = f"{name} (computed from the new images)"


def _embeddings(model: VAE) -> list[str]:
    """The names of the weights with a row for each class."""
    modules = model.named_modules() if model.classes else ()
    return [
        f"{name}.weight"
        for name, module in modules
        if isinstance(module, nn.Embedding) and module.num_embeddings == model.classes
    ]


@torch.no_grad()
def _assign(models: Sequence[nn.Module], match: Match) -> None:
    for model in models:
        state = model.state_dict()
        for name, tensor in match.taken.items():
            state[name].copy_(tensor)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "1"


def _amount(taken: int, total: int) -> str:
    """`1.94 of 1.95 million weights`."""
    large = total >= 1_000_000
    texts = [f"{count / 1e6:,.2f}" if large else f"{count:,}" for count in (taken, total)]
    text = texts[1] if taken == total else " of ".join(texts)
    return f"{text} {'million ' if large else ''}weights"
