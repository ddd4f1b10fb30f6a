"""What `vaekit train DATA --plan` prints and draws: the data as a training would take them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from vaekit.data.packs.pack import Pack
from vaekit.data.sources.conditions import captions
from vaekit.data.splits import SPLITS
from vaekit.plots import grids
from vaekit.plots.labels import file_labels
from vaekit.runs.outputs import first_free
from vaekit.training.plan import make_plan
from vaekit.training.request import TrainRequest
from vaekit.utils.files import printable, require_outside

MAX_CLASSES = 40
"""Classes that are listed, at most."""
EXAMPLES = 3
"""Files that are named for each reason of skipping."""
GOLDEN = (5**0.5 - 1) / 2
TILES = 32
"""Images on the sheet."""


def dry_run(request: TrainRequest) -> tuple[list[str], Path]:
    """The lines that describe what would be trained, and the sheet of images that was written to the folder
    `out` of the request, by default the current one.

    Nothing is trained and no run is made; the images are read into the cache.

    Raises:
        UserError: the request is wrong, or the sheet would be inside the folder of the images.
    """
    folder = request.out or Path()
    plan = make_plan(replace(request, out=None))
    require_outside(folder, plan.metadata.source)
    lines = [*plan.lines, *class_table(plan.pack), *skipped_files(plan.pack)]
    path = first_free(folder, f"{plan.pack.name}-plan", ".png")
    grids.write(path, sheet(plan.pack))
    return lines, path


def class_table(pack: Pack) -> list[str]:
    """Images of each class in each split, as a table; nothing without classes."""
    if not pack.classes:
        return []
    counts = {split: np.bincount(pack.split_labels(split), minlength=len(pack.classes)) for split in SPLITS}
    used = [split for split in SPLITS if pack.count(split)]
    width = max(len(name) for name in (*pack.classes[:MAX_CLASSES], "class"))
    lines = ["  ".join(["class".ljust(width), *(f"{split:>10}" for split in used)])]
    for number, name in enumerate(pack.classes[:MAX_CLASSES]):
        lines.append("  ".join([name.ljust(width), *(f"{counts[split][number]:>10,}" for split in used)]))
    if len(pack.classes) > MAX_CLASSES:
        lines.append(f"... and {len(pack.classes) - MAX_CLASSES:,} more classes")
    return lines


def skipped_files(pack: Pack) -> list[str]:
    """A line for each reason for which files are skipped, with examples, the most frequent first."""
    lines = []
    for reason, count in Counter(reason for _, reason in pack.skipped).most_common():
        names = [path for path, why in pack.skipped if why == reason]
        more = ", ..." if count > EXAMPLES else ""
        lines.append(f"Skipped, {reason}: {', '.join(names[:EXAMPLES])}{more} ({count:,})")
    return lines


def sheet(pack: Pack) -> Image.Image:
    """Training images, of every class in turn and spread over it, with their names and classes, or
    conditions."""
    rows = np.arange(pack.splits["train"].start, pack.splits["train"].stop)
    labels = np.asarray(pack.labels)[rows]
    turn = np.empty(len(rows), np.int64)
    for label in np.unique(labels):
        # The golden section spreads the first of any number of draws
        turn[labels == label] = np.argsort(np.argsort(np.arange((labels == label).sum()) * GOLDEN % 1))
    chosen = rows[np.lexsort((labels, turn))[:TILES]]
    chosen = chosen[np.argsort(np.asarray(pack.labels)[chosen], kind="stable")]
    paths = pack.paths()
    title = f"{len(chosen)} of the {pack.count('train'):,} training images, as the model sees them"
    names = file_labels([paths[row] for row in chosen])
    if pack.classes:
        classes = [printable(pack.classes[label]) for label in np.asarray(pack.labels)[chosen]]
        names = [f"{name}\n{label}" for name, label in zip(names, classes, strict=True)]
    if pack.conditions is not None and (texts := captions(pack.columns, pack.conditions[chosen])):
        names = [f"{name}\n{text}" for name, text in zip(names, texts, strict=True)]
    return grids.grid(np.asarray(pack.images[chosen]), 8, names, title)
