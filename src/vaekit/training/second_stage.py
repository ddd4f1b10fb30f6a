"""The second stage: a generative model of the latents, trained by the same loop as the autoencoder.

Its metrics and checkpoints are in the folder `latent_prior` of the run, which has the same layout; its new
images are beside those of the first stage.
"""

import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.config.overrides import override
from vaekit.config.training import TrainingConfig
from vaekit.data.loader import Batch, ImageLoader
from vaekit.data.samplers import permute
from vaekit.latents.fit_prior import untrained_flow_matching
from vaekit.latents.groups import Groups, fit_groups
from vaekit.latents.sampling import CHUNK, decode_images, draw_latents, seeded, to_uint8
from vaekit.models.distributions.latents import DiagonalGaussian, PointMass
from vaekit.models.flow_matching import FlowMatching, VelocityError
from vaekit.models.terms import Labels
from vaekit.models.vae import VAE
from vaekit.plots import grids
from vaekit.runs.checkpoint import load_weights
from vaekit.runs.metrics import Row, read_metrics
from vaekit.training.callbacks import Callback, TrainingState
from vaekit.training.checkpointing import resume
from vaekit.training.loop import EpochResult
from vaekit.training.optimizers import compute_dtype
from vaekit.training.plan import Plan
from vaekit.training.step import TrainStep
from vaekit.training.transfer import take_second_stage
from vaekit.utils.files import sha256, write_text
from vaekit.utils.logging import log, status
from vaekit.utils.random import derive_seed

EPOCH_STEPS = 100
"""Steps between two validations, at most."""
VALIDATION_IMAGES = 512
"""Images of a validation, at most, evenly spread: it takes a twentieth of the time of the steps."""
MAX_NUMBERS = 1 << 26
"""Maximum product of images and latents that are encoded for a split, 512 MB."""
POINT_LOG_VARIANCE = -30.0
"""Where q(z | x) is a point, or a sample of it stands for it."""


@dataclass(frozen=True)
class EncodedSplit:
    """q(z | x) of images: means and log-variances [N, 2D], and numbers [N] of classes, if there are classes,
    or of groups; or conditions [N, K]."""

    x: Float[Tensor, "N _"]
    y: Labels | None

    def spread(self, count: int) -> "EncodedSplit":
        """At most `count` of the images, evenly spread."""
        count = min(count, len(self.x))
        rows = torch.arange(count) * len(self.x) // max(1, count)
        return EncodedSplit(self.x[rows], None if self.y is None else self.y[rows])


class LatentLoader:
    """Batches of encoded images, as an `ImageLoader` has of images: x [B, 2D] and groups y [B] or conditions
    [B, K].

    An epoch has `steps_per_epoch` steps, whatever the number of images; every image is drawn once before any
    is drawn again.
    """

    def __init__(
        self,
        splits: dict[str, EncodedSplit],
        batch_size: int,
        steps_per_epoch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.splits = {
            name: EncodedSplit(part.x.to(device), None if part.y is None else part.y.to(device))
            for name, part in splits.items()
        }
        self.count, self.seed, self.device = len(splits["train"].x), seed, device
        self.batch_size, self.steps_per_epoch = min(batch_size, self.count), steps_per_epoch

    def train(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for step in range(start, self.steps_per_epoch):
            first = (epoch * self.steps_per_epoch + step) * self.batch_size
            draws = np.arange(first, first + self.batch_size)
            rows = np.empty_like(draws)
            for turn in np.unique(draws // self.count).tolist():
                here = draws // self.count == turn
                order_seed = derive_seed(self.seed, "latents", turn)
                rows[here] = permute(draws[here] % self.count, self.count, order_seed)
            yield self._batch("train", torch.from_numpy(rows).to(self.device))

    def split(self, name: str, limit: int | None = None, size: int | None = None) -> Iterator[Batch]:
        count = len(self.splits[name].x)
        for rows in torch.arange(min(count, limit or count), device=self.device).split(
            size or self.batch_size
        ):
            yield self._batch(name, rows)

    def _batch(self, name: str, rows: Tensor) -> Batch:
        part = self.splits[name]
        return part.x[rows], None if part.y is None else part.y[rows]


@torch.no_grad()
def encode_split(model: VAE, batches: Iterable[Batch], split: str, seed: int) -> EncodedSplit:
    """q(z | x) of all images; a posterior that is neither Gaussian nor a point is represented by a sample."""
    parts, labels = [], []
    with seeded(seed, "latents", split):
        for x, y in batches:
            q = model.posterior_of(x, y)
            if isinstance(q, DiagonalGaussian):
                loc, log_variance = q.mean, q.variance.log()
            else:
                loc = q.mean if isinstance(q, PointMass) else q.sample()
                log_variance = torch.full_like(loc, POINT_LOG_VARIANCE)
            parts.append(torch.cat([loc, log_variance], 1).cpu())
            if y is not None:
                labels.append(y.cpu())
    return EncodedSplit(torch.cat(parts), torch.cat(labels) if labels else None)


def flow_matching_model(plan: Plan) -> FlowMatching:
    """The untrained model of the second stage."""
    return untrained_flow_matching(plan.config, plan.model, len(plan.pack.classes), plan.metadata.seed)


def training_overrides(plan: Plan) -> dict[str, Any]:
    """How the second stage is trained, as settings; its epochs keep the length that they began with."""
    settings, rows = plan.config.flow_matching, read_metrics(plan.run.second_stage)
    per_epoch = max(1, min(EPOCH_STEPS, settings.steps))
    if rows:
        per_epoch = round(rows[-1]["step"] / rows[-1]["epoch"])
    return {
        "epochs": max(1, math.ceil(settings.steps / per_epoch)),
        "steps_per_epoch": per_epoch,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "optimizer": "adam",
        "schedule": "cosine",
        "ramp": EPOCH_STEPS,
        "clip": 1.0,
        "weight_decay": 0.0,
        "compile": "off",
        "patience": 0,
    }


def second_stage(first: TrainingState) -> TrainingState:
    """The training of the second stage on the latents of the best weights, restored if it began earlier."""
    plan, run = first.plan, first.run.second_stage
    weights_hash = sha256(first.run.weights)
    if not run.encoded_by.exists() or run.encoded_by.read_text() != weights_hash:  # or of other latents
        shutil.rmtree(run.folder, ignore_errors=True)
        for picture in run.samples(1).parent.glob(f"{run.folder.name}_*.png"):
            picture.unlink()
        run.folder.mkdir()
        write_text(run.encoded_by, weights_hash)
    model = first.train_step.ema.model
    load_weights(model, first.run.weights)
    config = override(plan.config, training_overrides(plan))
    objective: Any = VelocityError()
    plan = replace(plan, run=run, config=config, objective=objective)
    loader, groups = _encode(model, first.loader, config.training, mirrored=config.data.flip)
    prior = flow_matching_model(plan).to(plan.device)
    loc, log_variance = loader.splits["train"].x.chunk(2, dim=1)
    prior.set_units(loc, log_variance.exp())
    if groups is not None:
        assert loader.splits["train"].y is not None
        sizes = torch.bincount(loader.splits["train"].y, minlength=len(groups.classes))
        prior.set_groups(groups.classes.to(sizes), sizes)
    prior.precision = compute_dtype(plan.config.training)
    train_step = TrainStep(prior, objective, config.training, loader.steps_per_epoch)
    state = TrainingState(plan, first.request, train_step, loader, name="latent prior")
    if not resume(state):
        models: Any = (prior, train_step.ema.model)
        for line in take_second_stage(models, plan.metadata):
            log.info(line)
    return state


def _encode(
    model: VAE, loader: ImageLoader, settings: TrainingConfig, mirrored: bool
) -> tuple[LatentLoader, Groups | None]:
    """Encode the images; of the training images their mirror images too, if the first stage has seen them.
    Images without conditions are grouped."""
    limit = max(1, MAX_NUMBERS // model.latents // (2 if mirrored else 1))
    with status("Encoding the images"):
        batches = {name: loader.split(name, limit, CHUNK) for name in ("train", "validation")}
        if mirrored:
            batches["train"] = _with_mirror_images(batches["train"])
        splits = {name: encode_split(model, part, name, settings.seed) for name, part in batches.items()}
    groups = None
    if not model.vector:
        means = {name: part.x[:, : model.latents] for name, part in splits.items()}
        with status("Grouping similar images"):
            groups = fit_groups(means["train"], splits["train"].y, seed=settings.seed)
            splits = {
                name: EncodedSplit(part.x, groups.of(means[name], part.y)) for name, part in splits.items()
            }
    splits["validation"] = splits["validation"].spread(VALIDATION_IMAGES)
    size = int(settings.batch_size)
    return LatentLoader(splits, size, settings.steps_per_epoch, settings.seed, loader.device), groups


def _with_mirror_images(batches: Iterable[Batch]) -> Iterator[Batch]:
    for x, y in batches:
        yield x, y
        yield x.flip(3), y


class LatentPictures(Callback):
    """Draws new images from the second stage as it goes, of the same noise every time."""

    IMAGES = 64

    def __init__(self, model: VAE) -> None:
        self.model = model

    def on_epoch_end(self, state: TrainingState, result: EpochResult, row: Row) -> None:
        epoch = state.progress.epoch
        if epoch & (epoch - 1) and not state.finished:  # after 1, 2, 4, 8, ... and at the end
            return
        prior: Any = state.train_step.ema.model
        y = self.model.labels_in_turn(self.IMAGES)
        z = draw_latents(prior, self.IMAGES, state.plan.metadata.seed, y)
        images = to_uint8(decode_images(self.model, z, y)).numpy()
        path = state.run.samples(epoch)

        def write() -> None:
            title = f"New images after {row['step']:,.0f} steps of flow matching"
            grids.write(path, grids.grid(images, title=title))

        state.background.put(f"pictures {epoch}", write)
        if epoch == 1:
            log.info(f"New images of flow matching: {path.parent}/{state.run.folder.name}_*.png")
