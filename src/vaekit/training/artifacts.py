"""Callbacks that write pictures, the loss graph and the sampling prior."""

import copy
import math
from contextlib import suppress

import torch

from vaekit.errors import Interrupted, UserError
from vaekit.latents.fit_prior import fit_prior, trained_flow_matching
from vaekit.latents.sampling import decode_images, draw_latents, draw_like, seeded, to_uint8
from vaekit.models.single_level import rsample_with_log_prob
from vaekit.plots import curves, grids
from vaekit.runs.checkpoint import load_prior, load_weights, write_prior
from vaekit.runs.conditions import label_names
from vaekit.runs.folder import Run
from vaekit.runs.metrics import Row, read_metrics
from vaekit.training.callbacks import Callback, TrainingState
from vaekit.training.loop import EpochResult
from vaekit.utils.files import atomic_file, sha256
from vaekit.utils.logging import log

PREVIEW_IMAGES = 64
"""Training images in data.png."""
SAMPLE_IMAGES = 64
"""New images in a picture of samples."""
RECONSTRUCTED_IMAGES = 32
"""Validation images in a picture of reconstructions."""
ENCODED_IMAGES = 256
"""Validation images whose latents new images are drawn like, before a second stage: until it has learned how
the places of a latent image depend on each other, a Gaussian shows what the decoder can do."""


class DataPreview(Callback):
    """Draws data.png before the first step: training images, exactly as the model sees them."""

    def on_train_begin(self, state: TrainingState) -> None:
        if state.plan.resumed:
            return
        pack, loader = state.plan.pack, state.loader
        count = min(PREVIEW_IMAGES, loader.batch_size)
        x, y = next(loader.train(0))
        images = to_uint8(x[:count]).numpy()
        labels = label_names(pack, None if y is None else y[:count])
        title = f"{count} of {loader.count:,} training images, as the model sees them"
        grids.write(state.run.data_preview, grids.grid(images, labels=labels, title=title))
        log.info(f"Training images as the model sees them: {state.run.data_preview}")


class Pictures(Callback):
    """Draws samples/ and reconstructions/, of the same latent noise and validation images every time."""

    def on_epoch_end(self, state: TrainingState, result: EpochResult, row: Row) -> None:
        if is_picture_epoch(state.progress.epoch) or state.finished:
            self._draw(state)
            if state.progress.epoch == 1:
                folder = state.run.folder
                log.info(f"Pictures of every epoch: {folder}/samples/, {folder}/reconstructions/")

    @torch.no_grad()
    def _draw(self, state: TrainingState) -> None:
        """Decode the pictures now; draw and write them in the background."""
        model, pack, epoch = state.train_step.ema.model, state.plan.pack, state.progress.epoch
        count, columns = SAMPLE_IMAGES, None
        if pack.classes and model.classes:
            columns = max(1, SAMPLE_IMAGES // model.classes)
            count = min(SAMPLE_IMAGES, columns * model.classes)
        y = model.labels_in_turn(count, grouped=True)
        seed = state.plan.config.training.seed
        if state.plan.config.latent_prior == "flow_matching":
            x, truth = next(state.loader.split("validation", ENCODED_IMAGES, size=ENCODED_IMAGES))
            with seeded(seed, "pictures"):
                encoded, _ = rsample_with_log_prob(model.posterior_of(x, truth), 1)
                z, source = draw_like(encoded[0], count), "a Gaussian fitted to the latents"
        else:
            z, source = draw_latents(model, count, seed, y), "the model's own prior"
        samples = to_uint8(decode_images(model, z, y)).numpy()
        x, truth = next(state.loader.split("validation", RECONSTRUCTED_IMAGES, size=RECONSTRUCTED_IMAGES))
        originals, reconstructions = to_uint8(x).numpy(), to_uint8(model.reconstruct(x, truth)).numpy()
        sample_names = label_names(pack, y)
        names = label_names(pack, truth)

        def write() -> None:
            title = f"Epoch {epoch}: new images from {source}"
            grids.write(state.run.samples(epoch), grids.grid(samples, columns, sample_names, title))
            title = f"Epoch {epoch}: validation images (top) and their reconstructions (bottom)"
            sheet = grids.grid(originals, 8, names, title, [reconstructions])
            grids.write(state.run.reconstructions(epoch), sheet)

        state.background.put(f"pictures {epoch}", write)


class LossGraph(Callback):
    """Draws loss.png from the metrics.csv of both stages."""

    def on_epoch_end(self, state: TrainingState, result: EpochResult, row: Row) -> None:
        if state.background.ready("graph"):
            self._draw(state)

    def on_train_end(self, state: TrainingState) -> None:
        self._draw(state)

    def _draw(self, state: TrainingState) -> None:
        def write() -> None:
            import pandas as pd

            run = Run(state.run.main)
            if rows := read_metrics(run):
                title = f"{state.plan.pack.name}, preset {state.plan.metadata.preset}"
                later = read_metrics(run.second_stage)
                second_stage = pd.DataFrame(later) if later else None
                noise = state.plan.config.training.latent_noise
                graph = curves.loss_graph(pd.DataFrame(rows), title, second_stage, noise)
                with atomic_file(run.loss_graph) as temporary:
                    temporary.write_bytes(graph)

        state.background.put("graph", write)


class SamplingPrior(Callback):
    """Fits a sampling prior to the latents, and keeps it if it is better than the model's own."""

    def on_saved(self, state: TrainingState) -> None:
        run, weights_hash = state.run, sha256(state.run.weights)
        with suppress(UserError):  # a damaged one is replaced
            if not state.trained and load_prior(run, weights_hash) is not None:
                return
        model = copy.deepcopy(state.train_step.ema.model)
        load_weights(model, run.weights)
        try:
            flow_matching = trained_flow_matching(
                run, state.plan.config, model, len(state.plan.pack.classes), weights_hash
            )
            fit = fit_prior(model, state.loader, state.plan.config.training.seed, flow_matching)
        except KeyboardInterrupt:
            raise Interrupted(f"Stopped while fitting the sampling prior. {state.how_to_resume()}") from None
        write_prior(run, fit.prior, fit.record, weights_hash)
        log.info(fit.sentence)


def default_callbacks() -> list[Callback]:
    """What `vaekit.train` does besides training, by default."""
    return [DataPreview(), Pictures(), LossGraph(), SamplingPrior()]


def is_picture_epoch(epoch: int) -> bool:
    """Every epoch up to 20, every 2nd up to 50, 5th up to 100, 10th up to 200, ...: about 15 per decade."""
    decade = 10 ** int(math.log10(max(epoch / 10, 1)))
    step = max(decade * factor for factor in (1, 2, 5) if decade * factor <= max(epoch / 10, 1))
    return bool(epoch % step == 0)
