"""A run as one page of HTML that opens from the disk: what went in, what was learned, what comes out, what it is worth.

Nothing is loaded from anywhere: pictures stand in the page itself.
"""

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import Pack
from vaekit.errors import UserError
from vaekit.evaluation.evaluate import EvalContext, diagnosis, evaluate, training_images
from vaekit.evaluation.likelihood import log_likelihoods
from vaekit.evaluation.text import sections
from vaekit.latents import encode, traverse
from vaekit.latents.sampling import decode_images, draw_latents, interpolate, to_uint8
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.registry import provides
from vaekit.models.vae import VAE
from vaekit.plots import curves, grids
from vaekit.report.html import PAGE, STYLE, data, figure, note, section, table
from vaekit.runs.commands import train_command
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import class_numbers, held_out_rows
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import DatasetSummary, RunMetadata, read_config, read_dataset
from vaekit.runs.metrics import read_metrics
from vaekit.runs.outputs import require_writable
from vaekit.utils.files import printable, write_text
from vaekit.utils.logging import console_logging, progress

LOOKED_AT, SAMPLES = 500, 50
"""Held-out images, and importance samples of each, of the quick look at a run that was not evaluated."""


MAPPED = 2000
"""Images on the map of latents."""


PAIRS, SHOWN, ENDS, WAYS, STEPS = 16, 40, 12, 3, 9
"""Reconstructions, new images, images at either end of the ranking, interpolations and the images of each."""


def write_report(model: LoadedModel, quiet: bool = False) -> None:
    """Write report.html into the run; figures are those of evaluation.json, or of a quick look where there are none.

    Parts that need the training images say so where these are not there as they were.
    """
    run = model.run
    require_writable(run)
    record, dataset = read_config(run), read_dataset(run)
    with console_logging(quiet):
        seen = _see(model, quiet)
        body = [
            _head(model, record, dataset),
            *_training(model, dataset, seen),
            *_loss(model),
            *_latent_space(model, seen, quiet),
            *_odd_ones(model, seen),
            *_figures(model, seen, quiet),
            _again(record, dataset),
        ]
    page = PAGE.format(title=html.escape(run.folder.resolve().name), style=STYLE, body="\n".join(body))
    write_text(run.report, printable(page))


@dataclass(frozen=True, eq=False)
class _Seen:
    """The images that the page shows."""

    pack: Pack
    split: str
    held_out: ImageSet


def _see(model: LoadedModel, quiet: bool) -> _Seen | None:
    try:
        pack, split, rows = held_out_rows(model, None, quiet)
    except UserError:
        return None
    return _Seen(pack, split, ImageSet(pack, rows, class_numbers(model, pack)))


# --- sections --------------------------------------------------------------------------------------------------------


def _head(model: LoadedModel, record: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    history = read_metrics(model.run)
    best = min(history, key=lambda row: row["val_loss"], default=None)
    channels = {1: "gray", 3: "colour", 4: "colour with transparency"}[model.shape[0]]
    facts = {
        "images": f"{dataset['images']:,} of {dataset['width']}x{dataset['height']} pixels, {channels}",
        "preset": record["preset"],
        "latents": str(model.config.latents),
        "epochs": f"{len(history):,}",
        "best validation loss": "not there any more"
        if best is None
        else f"{best['val_loss']:,.2f} nats per image, epoch {best['epoch']:.0f}",
        "prior of new images": "the model's own" if model.fitted_prior is None else model.fitted_prior.name,
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts.items())
    return f"<header><h1>{html.escape(model.run.folder.resolve().name)}</h1><dl class=facts>{cells}</dl></header>"


def _training(model: LoadedModel, dataset: Mapping[str, Any], seen: _Seen | None) -> list[str]:
    splits = ", ".join(f"{count:,} {split}" for split, count in dataset["splits"].items() if count)
    said = f"{html.escape(dataset['source'])}: {splits}."
    parts = []
    if seen is None:
        parts.append(note("The images are not at hand as they were; what shows them is left out of this page."))
    else:
        batches = ImageLoader(seen.pack, model.config.data, SHOWN, model.config.training.seed, torch.device("cpu"))
        x, y = next(batches.train(0))
        names = None if y is None or not seen.pack.classes else [seen.pack.classes[i] for i in y.tolist()]
        sheet = grids.grid(to_uint8(x).numpy(), min(10, len(x)), names)
        parts.append(figure(sheet, "The first images of the first epoch, exactly as the model saw them"))
    if counts := dataset.get("counts"):
        parts.append(_counts(counts))
    if skipped := dataset["skipped"]:
        rows = "".join(
            f"<tr><td>{html.escape(one['path'])}</td><td>{html.escape(one['reason'])}</td></tr>" for one in skipped[:50]
        )
        more = f" (the first 50 of {len(skipped):,}; all in dataset.json)" if len(skipped) > 50 else ""
        files = "1 file" if len(skipped) == 1 else f"{len(skipped):,} files"
        parts.append(f"<details><summary>{files} skipped{more}</summary><table>{rows}</table></details>")
    return section("What it was trained on", said, parts)


def _counts(counts: Mapping[str, Any]) -> str:
    """How many images of each class are on each side."""
    if not all(isinstance(of_side, Mapping) for of_side in counts.values()):
        return ""
    splits = [split for split, of_side in counts.items() if of_side]
    classes = list(dict.fromkeys(name for of_side in counts.values() for name in of_side))
    if len(classes) < 2:
        return ""
    head = "".join(f"<th>{html.escape(split)}</th>" for split in splits)
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td>{counts[split].get(name, 0):,}</td>" for split in splits)
        + "</tr>"
        for name in classes
    )
    return f"<details><summary>{len(classes)} classes</summary><table><tr><th></th>{head}</tr>{rows}</table></details>"


def _loss(model: LoadedModel) -> list[str]:
    if not model.run.loss_graph.exists():
        return []
    graph = data(model.run.loss_graph.read_bytes())
    said = "Nats per image, summed over pixels and latents; validation images are those that no step has seen."
    return section("Loss of every epoch", said, [f'<figure><img src="{graph}" alt="Loss of every epoch"></figure>'])


@torch.no_grad()
def _latent_space(model: LoadedModel, seen: _Seen | None, quiet: bool) -> list[str]:
    vae, classes, seed = model.vae, model.classes, model.config.training.seed
    found = []
    if seen is not None:
        chosen = seen.held_out.spread(PAIRS)
        x, y = next(chosen.batches(model.device))
        again = to_uint8(vae.reconstruct(x, y)).numpy()
        sheet = grids.pairs(chosen.pixels, again, 8)
        caption = f"Images of the {seen.split} side above, what comes back of them below"
        found += section("Reconstructions", caption + ".", [figure(sheet)])
    y = torch.arange(SHOWN, device=model.device) * vae.classes // SHOWN if vae.classes else None
    names = None if y is None else [classes[i] for i in y.tolist()]
    priors: dict[str, VAE | FittedPrior] = {"From the model's own prior": vae}
    if model.fitted_prior is not None:
        priors = {f"From the fitted prior: {model.fitted_prior.name}": model.fitted_prior, **priors}
    sheets = []
    for caption, prior in priors.items():
        new = to_uint8(decode_images(vae, draw_latents(prior, SHOWN, seed, y), y)).numpy()
        sheets.append(figure(grids.grid(new, 10 if y is None else 8, names), caption))
    found += section("New images", "Decoded from draws of a prior; none is a reconstruction.", sheets)
    label = 0 if vae.classes else None
    use = traverse.latent_stats(model, label, quiet)
    moved = traverse.traverse(vae, use, label, 8, 11)
    said = "Each row varies one latent by -2.5 to 2.5 standard deviations, the most active first; the others stay."
    said += f" Class: {html.escape(classes[0])}." if vae.classes else ""
    sheet = grids.table(moved.images, moved.rows, moved.columns)
    found += section("What single latents do", said, [figure(sheet)])
    if seen is not None:
        found += section(*_map(model, seen))
        found += section(*_ways(model, seen)) if len(_pairs(seen.held_out)) > 1 else []
    return found


@torch.no_grad()
def _map(model: LoadedModel, seen: _Seen) -> tuple[str, str, list[str]]:
    """Posterior means in their two principal directions, by class."""
    chosen = seen.held_out.spread(MAPPED)
    z = encode.encode_means(model.vae, chosen.batches(model.device))
    said, axes = f"Where {len(z):,} images of the {seen.split} side lie", ("z1", "z2")
    if model.vae.latents > 2:
        centred = z - z.mean(0)
        _, values, directions = torch.linalg.svd(centred, full_matrices=False)
        z = centred @ directions[:2].T
        share = (values[:2].square().sum() / values.square().sum().clamp(min=1e-12)).item()
        said += f", in the two directions in which they spread most, with {share:.0%} of the variance"
        axes = ("first direction", "second direction")
    labels = np.asarray(seen.pack.labels)[chosen.rows] if seen.pack.classes else None
    picture = _scatter(z, labels, [curves.short(printable(name)) for name in seen.pack.classes], axes)
    return "Map of the latent space", said + ".", [f'<figure><img src="{picture}" alt="Map of latents"></figure>']


def _scatter(
    z: Float[Tensor, "N d"], labels: Int64[np.ndarray, " N"] | None, classes: Sequence[str], names: tuple[str, str]
) -> str:
    import seaborn as sns
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = torch.cat([z, torch.zeros(len(z), max(0, 2 - z.shape[1]))], 1).numpy()
    named = labels is not None and 1 < len(classes) <= 20
    palette = sns.color_palette("colorblind" if len(classes) <= 10 else "husl", len(classes)) if named else None
    with sns.axes_style("whitegrid", {"grid.color": "#e6e6e6", "axes.edgecolor": "#999999"}):
        figure = Figure(figsize=(8.5, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        hue = [str(label) for label in labels] if named and labels is not None else None  # names may mean something
        order = list(map(str, range(len(classes)))) if named else None
        sns.scatterplot(
            x=points[:, 0],
            y=points[:, 1],
            hue=hue,
            hue_order=order,
            palette=palette,
            s=14,
            linewidth=0,
            alpha=0.75,
            ax=axes,
        )
        axes.set(xlabel=names[0], ylabel=names[1] if z.shape[1] > 1 else "")
        axes.set_aspect("equal", adjustable="datalim")
        sns.despine(ax=axes)
        if named:
            key = axes.legend(title=None, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.6)
            for text, name in zip(key.get_texts(), classes, strict=True):
                text.set(text=name, parse_math=False)
    return data(curves.drawn(figure))


def _pairs(images: ImageSet) -> ImageSet:
    """Some of them, two and two; both of one class where a model is conditional and there are two of one."""
    if images.labels is None:
        return images.spread(2 * WAYS)
    of_class = [(images.labels == label).nonzero()[:2, 0] for label in images.labels.unique()]
    pairs = [rows.numpy() for rows in of_class if len(rows) == 2]
    ways = min(WAYS, len(pairs))
    chosen = np.concatenate([pairs[i * len(pairs) // ways] for i in range(ways)] or [[]])
    return replace(images, rows=images.rows[chosen.astype(np.int64)])


@torch.no_grad()
def _ways(model: LoadedModel, seen: _Seen) -> tuple[str, str, list[str]]:
    """From held-out images to others, through the latent space; of one class each in a conditional model."""
    chosen = _pairs(seen.held_out)
    z = encode.encode_means(model.vae, chosen.batches(model.device))
    rows = []
    for start in range(0, len(z) - 1, 2):
        path = interpolate(z[start], z[start + 1], STEPS, True)
        y = None if chosen.labels is None else chosen.labels[start].expand(STEPS)
        between = to_uint8(decode_images(model.vae, path, y)).numpy()
        ends = chosen.pixels[[start, start + 1]]
        rows.append(np.concatenate([ends[:1], between, ends[1:]]))
    columns = ["original", *(f"{step / (STEPS - 1):.0%}" for step in range(STEPS)), "original"]
    sheet = grids.table(np.stack(rows), [""] * len(rows), columns)
    said = "From one held-out image to another: the spherical way between their posterior means."
    return "Interpolations", said, [figure(sheet)]


@torch.no_grad()
def _odd_ones(model: LoadedModel, seen: _Seen | None) -> list[str]:
    if seen is None or "density_at_sample" not in provides(model.vae.posterior):
        return []
    chosen = seen.held_out.spread(LOOKED_AT)
    nats, _ = log_likelihoods(model.vae, chosen.batches(model.device), SAMPLES, model.config.training.seed)
    order = nats.argsort().numpy()
    count = min(ENDS, len(order) // 2)
    if not count:
        return []
    sheets = []
    for rows, caption in ((order[:count], "Least likely first"), (order[::-1][:count], "Most likely first")):
        labels = [f"{nats[row]:,.0f}" for row in rows]
        sheets.append(figure(grids.grid(chosen.pixels[rows], count, labels), caption))
    said = (
        f"Of {len(nats):,} images of the {seen.split} side, by log p(x) in nats ({SAMPLES} importance samples). Busy "
        "images rank as odd and plain ones as likely, whatever they show; <code>vaekit rank</code> ranks any folder."
    )
    return section("Odd ones, and typical ones", said, sheets)


def _figures(model: LoadedModel, seen: _Seen | None, quiet: bool) -> list[str]:
    """The evaluation and the diagnosis."""
    found, said = _evaluated(model), "By <code>vaekit evaluate</code>; all of it is in evaluation.json."
    if found is None and seen is not None:
        found = _quick(model, seen, quiet)
        full = html.escape(f"vaekit evaluate {shlex.quote(str(model.run.folder))}")
        said = (
            f"A quick look at {found['images']:,} images with {SAMPLES} importance samples. <code>{full}</code> "
            "takes its time, and compares new images."
        )
    if found is None:
        return []
    tables = {title: rows for title, rows in sections(found).items() if rows and title != "Diagnosis"}
    parts = [f"<h3>{html.escape(title)}</h3>{table(rows)}" for title, rows in tables.items()]
    if model.run.nearest.exists() and found["memorisation"] and _evaluated(model) is not None:
        alt = "New images above their nearest training images"
        parts.append(f'<figure><img src="{data(model.run.nearest.read_bytes())}" alt="{alt}"></figure>')
    faults = [
        f"<li><strong>{html.escape(one['name'])}</strong> {html.escape(one['sentence'])}"
        f"<pre>{html.escape(one['remedy'])}</pre></li>"
        for one in found["diagnosis"]
    ]
    healthy = "<p class=good>None of the faults that are looked for was found.</p>"
    told = f"<ul class=faults>{''.join(faults)}</ul>" if faults else healthy
    mended = "What was found wrong, and the command that mends it."
    return [*section("Diagnosis", mended, [told]), *section("Figures", said, parts)]


def _evaluated(model: LoadedModel) -> dict[str, Any] | None:
    """The content of evaluation.json, where it is of these weights, and whole."""
    try:
        found = dict(json.loads(model.run.evaluation.read_text(encoding="utf-8")))
        sections(found)
        return found if found["weights"] == model.weights_hash and "diagnosis" in found else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _quick(model: LoadedModel, seen: _Seen, quiet: bool) -> dict[str, Any]:
    few, training = seen.held_out.spread(LOOKED_AT), training_images(model, quiet)
    context = EvalContext(model, few, training, model.config.training.seed)
    with progress(len(few), "a quick look", quiet=quiet) as advance:
        found, _ = evaluate(context, SAMPLES, None, lambda n, words: advance(n) if "likelihood" in words else None)
    found["why"]["fidelity"] = "a full evaluation compares them"
    found |= {"data": seen.pack.source, "side": seen.split, "own": True}
    return found | {"diagnosis": diagnosis(model, found, len(training or ()))}


def _again(record: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    threads = "1 thread" if record["threads"] == 1 else f"{record['threads']} threads"
    where = f"Seed {record['seed']}; {record['device']}, {threads}, precision {record['precision']}"
    where = f"{where}; {versions}."
    parts = [
        f"<pre>{html.escape(train_command(RunMetadata.model_validate(record), DatasetSummary.model_validate(dataset)))}</pre>",
        f"<p>Data: fingerprint <code>{html.escape(dataset['fingerprint'][:16])}</code>, in full in dataset.json.</p>",
    ]
    return "".join(section("How to make it again", html.escape(where), parts))
