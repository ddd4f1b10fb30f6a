"""A run as one page that opens from the disk without a network."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import torch

from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import channel_text
from vaekit.errors import UserError
from vaekit.evaluation.context import EvalContext, open_context
from vaekit.evaluation.evaluate import evaluate
from vaekit.evaluation.results import EvaluationResult, read_evaluation
from vaekit.evaluation.text import sections
from vaekit.latents.sampling import to_uint8
from vaekit.plots import curves, grids
from vaekit.report import images
from vaekit.report.html import Block, Section, render, text_table, tile_columns, tiles
from vaekit.runs.commands import train_command
from vaekit.runs.conditions import label_names
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import DatasetSummary, RunMetadata, read_dataset_summary, read_metadata
from vaekit.runs.metrics import read_metrics
from vaekit.runs.outputs import require_writable
from vaekit.utils.files import printable, write_text
from vaekit.utils.logging import console_logging, log, progress, status

MAX_QUICK_NEW_IMAGES = 100
"""New images whose nearest training images are sought in a quick evaluation, at most."""
LISTED_FILES = 50
"""Skipped files that are listed, at most."""


def write_report(model: LoadedModel, quiet: bool = False) -> None:
    """Write report.html into the run.

    Metrics are those of evaluation.json, or of a quick evaluation where there are none. Without the
    training images, the parts that need them are left out.
    """
    run = model.run
    require_writable(run)
    metadata, dataset = read_metadata(run), read_dataset_summary(run)
    with console_logging(quiet), status("Writing the report"):
        context = None
        with suppress(UserError):  # of images that have moved or changed
            context = open_context(model, None, model.config.training.seed, quiet)
        quick = images.quick_size(model, _time_for_likelihood(model) / 2)  # evaluated, and ranked
        evaluation = _evaluation_sections(model, context, quick, quiet)
        shown = [] if context is None else [context]
        sections = [
            images.new_images(model),
            *evaluation[:1],
            *(images.reconstructions(one) for one in shown),
            *_training_curves(model),
            images.traversals(model, quiet),
            *(images.latent_map(one) for one in shown),
            *(section for one in shown for section in images.interpolations(one)),
            *(section for one in shown for section in images.ranked(one, quick)),
            *evaluation[1:],
            _data(model, dataset, context),
            _reproduce(metadata, dataset),
        ]
    page = render(run.folder.resolve().name, facts(model), sections)
    write_text(run.report, printable(page))


def facts(model: LoadedModel) -> dict[str, str]:
    """A run in a few names and values, for the top of the page."""
    metadata, dataset = read_metadata(model.run), read_dataset_summary(model.run)
    history = read_metrics(model.run)
    best = min(history, key=lambda row: row["val_loss"], default=None)
    fitted, channels = model.fitted_prior, channel_text(model.shape[0])
    loss = "unknown (metrics.csv is missing)"
    if best is not None:
        loss = f"{best['val_loss']:,.2f} nats per image, in epoch {best['epoch']:,.0f}"
        loss += f" ({history[0]['val_loss']:,.2f} in the first)" if best is not history[0] else ""
    listed = ", ".join(column.description for column in model.columns)
    return {
        "images": f"{dataset.images:,} of {dataset.width}x{dataset.height} pixels, {channels}",
        **({"conditions": listed} if listed else {}),
        "preset": metadata.preset,
        "latents": str(model.config.latents),
        "training": f"{len(history):,} of {model.config.training.epochs:,} epochs",
        "time taken": _duration(_seconds(model)),
        "device": metadata.device,
        "date": datetime.fromtimestamp(model.run.weights.stat().st_mtime).strftime("%Y-%m-%d %H:%M"),
        "best validation loss": loss,
        "sampling prior": "the model's" if fitted is None else f"fitted: {fitted.name}",
    }


def _duration(seconds: float) -> str:
    """A time in the two units that matter."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(minutes)} min {int(seconds % 60)} s" if minutes >= 1 else f"{seconds:.0f} s"


def _evaluation_sections(
    model: LoadedModel, context: EvalContext | None, quick: images.QuickSize, quiet: bool
) -> list[Section]:
    """The diagnosis, and the metrics; none without an evaluation where the images are missing."""
    result = read_evaluation(model.run, model.weights_hash)
    text = "By `vaekit evaluate`; all values are in evaluation.json."
    blocks: list[Block] = []
    if result is not None and model.run.nearest.exists() and result.memorization:
        alt = "New images and the nearest training image of each"
        source = grids.png_source(model.run.nearest.read_bytes())
        blocks.append(Block("sheet", (source, alt), alt))
    if result is None and context is not None:
        result = _quick_evaluation(context, quick, quiet)
        command = f"vaekit evaluate {shlex.quote(str(model.run.folder))}"
        text = (
            f"Quick evaluation on {result.images:,} images with {quick.samples} importance samples. "
            f"Run `{command}` for full metrics, including sample quality."
        )
    if result is None:
        return []
    blocks = [*(text_table(rows, title=title) for title, rows in sections(result).items()), *blocks]
    diagnosis = Section("Diagnosis", "No problems found.")
    if faults := result.diagnosis:
        problems = "Problems found, and the command that fixes each."
        diagnosis = Section("Diagnosis", problems, [Block("faults", faults)])
    return [diagnosis, Section("Evaluation", text, blocks)]


def _time_for_likelihood(model: LoadedModel) -> float:
    """Seconds: a third of a twentieth of the time of training, and of 20 s at least."""
    return max(20.0, _seconds(model) / 20) / 3


def _seconds(model: LoadedModel) -> float:
    """The time of training, in both stages."""
    stages = (model.run, model.run.second_stage)
    return sum(row.get("seconds", 0) for run in stages for row in read_metrics(run))


def _quick_evaluation(context: EvalContext, quick: images.QuickSize, quiet: bool) -> EvaluationResult:
    few = replace(
        context,
        held_out=context.held_out.spread(quick.images),
        max_new_images=MAX_QUICK_NEW_IMAGES,
        quick=True,
    )
    total = len(few.held_out) * quick.samples
    with progress(total, "Evaluating", "samples", quiet=quiet) as advance:

        def advance_likelihood(n: int, part: str) -> None:
            if part == "Likelihood":
                advance(n)

        result, _ = evaluate(few, quick.samples, None, advance_likelihood)
    if (copies := result.memorization) and copies.copied is not None:
        near, expected = (
            round(MAX_QUICK_NEW_IMAGES * (share or 0)) for share in (copies.copied, copies.copied_expected)
        )
        log.info(
            f"Copies: {near} of {MAX_QUICK_NEW_IMAGES} new images are suspiciously near to a training image "
            f"({expected} expected of a model that copies none)."
        )
    unavailable = result.unavailable | dict.fromkeys(("fidelity", "ssim"), "measured by a full evaluation")
    return result.model_copy(update={"unavailable": unavailable})


def _training_curves(model: LoadedModel) -> list[Section]:
    import pandas as pd

    metrics = pd.DataFrame(read_metrics(model.run))
    if metrics.empty:
        return []
    noise = model.config.training.latent_noise
    graphs = [
        (curves.loss_panel(metrics, name, latent_noise=noise), f"{curves.heading(name)} of every epoch")
        for name in curves.reported(metrics)
    ]
    if later := read_metrics(model.run.second_stage):
        title = curves.SECOND_STAGE
        graphs.append((curves.loss_panel(pd.DataFrame(later), "loss", title), f"{title}, of every epoch"))
    text = "Nats per image, summed over pixels and latents; validation images are never trained on."
    caption = "The dotted line marks the best epoch: the model has the weights of this epoch."
    return [Section("Training curves", text, [Block("graphs", graphs, caption)])]


def _data(model: LoadedModel, dataset: DatasetSummary, context: EvalContext | None) -> Section:
    """The inputs: some of them as the model sees them, classes, and files that were skipped."""
    splits = ", ".join(f"{count:,} {split}" for split, count in dataset.splits.items() if count)
    text = f"{dataset.source}: {splits} images."
    blocks: list[Block] = []
    if context is None:
        text += " They have moved or changed since training, so what needs them is left out of this page."
    else:
        count, seed = 3 * tile_columns(model.shape), model.config.training.seed
        pack = context.held_out.pack
        x, y = next(ImageLoader(pack, model.config.data, count, seed, torch.device("cpu")).train(0))
        names = label_names(pack, y) or []
        caption = "The first images of the first epoch, as the model sees them"
        blocks.append(tiles([to_uint8(x).numpy()], "training image", names, caption))
    blocks += _class_table(dataset.counts)
    if skipped := dataset.skipped:
        files = "1 skipped file" if len(skipped) == 1 else f"{len(skipped):,} skipped files"
        if len(skipped) > LISTED_FILES:
            files += f" (the first {LISTED_FILES}; all are in dataset.json)"
        blocks.append(text_table([(one.path, one.reason) for one in skipped[:LISTED_FILES]], summary=files))
    return Section("Data", text, blocks, warning=context is None)


def _class_table(counts: Mapping[str, Any]) -> list[Block]:
    """How many images of each class each split has."""
    if not all(isinstance(of_split, Mapping) for of_split in counts.values()):
        return []
    splits = [split for split, of_split in counts.items() if of_split]
    classes = list(dict.fromkeys(name for of_split in counts.values() for name in of_split))
    if len(classes) < 2:
        return []
    rows = [(name, *(f"{counts[split].get(name, 0):,}" for split in splits)) for name in classes]
    return [text_table([("class", *splits), *rows], summary=f"{len(classes)} classes")]


def _reproduce(metadata: RunMetadata, dataset: DatasetSummary) -> Section:
    threads = "1 thread" if metadata.threads == 1 else f"{metadata.threads} threads"
    versions = ", ".join(f"{name} {version}" for name, version in metadata.versions.items())
    text = (
        f"Seed {metadata.seed}; {metadata.device}, {threads}, precision {metadata.precision}; {versions}. "
        f"Data fingerprint: `{dataset.fingerprint[:16]}`... (full value in dataset.json)."
    )
    return Section("Reproduce this run", text, [Block("code", train_command(metadata, dataset))])
