"""Graphs: the loss of every epoch, and points in a plane; on white, or in the colours of a page."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int64

from vaekit.plots.labels import ELLIPSIS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADINGS = {
    "kl": "KL divergence",
    "mmd": "Maximum mean discrepancy",
    "l2": "Squared length of latents, halved",
}
"""Titles of panels that are not the name of their column."""
SECOND_STAGE = "Flow matching"
"""The title of the panel of the second stage, whose loss is a mean squared error."""
INK = "#3c3c3d"
"""The colour of text and axes, which becomes the text's colour on a page."""
SOFT = "#d9d9da"
"""The colour of grid lines, which becomes the lines' colour on a page."""
MIN_EPOCHS_TO_CLIP = 10
"""With fewer epochs, all of them are on the scale."""
LEGEND_CLASSES = 20
"""With more classes, points are not coloured by class."""
LEGEND_WIDTH = 40
"""Characters of a class name in a legend, at most."""


def loss_graph(
    metrics: "pd.DataFrame",
    title: str,
    second_stage: "pd.DataFrame | None" = None,
    latent_noise: float = 0.0,
) -> bytes:
    """A PNG of the loss of every epoch: total, reconstruction, KL and whatever else the objective reports;
    and the loss of the second stage if there is one. The legend mentions noise on latents in training."""
    panels = reported(metrics)
    count = len(panels) + (second_stage is not None)
    columns = 2 if count == 4 else 3
    rows = -(-count // columns)
    with _figure(4.0 * columns, 0.5 + 3.6 * rows) as figure:
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in grid[count:]:
            axes.set_visible(False)
        if second_stage is not None:
            _draw_panel(grid[count - 1], second_stage, "loss", SECOND_STAGE)
        for axes, name in zip(grid, panels, strict=False):
            _draw_panel(axes, metrics, name, latent_noise=latent_noise)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK, parse_math=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, facecolor="white")
        return buffer.getvalue()


def loss_panel(
    metrics: "pd.DataFrame", name: str, title: str | None = None, latent_noise: float = 0.0
) -> str:
    """One panel of the loss graph as SVG for a page."""
    with _figure(4.8, 3.4) as figure:
        _draw_panel(figure.subplots(), metrics, name, title, latent_noise)
        return _svg(figure)


def reported(metrics: "pd.DataFrame") -> list[str]:
    """Names of the values that were computed in training: each has a panel."""
    names = [name.removeprefix("train_") for name in metrics.columns if name.startswith("train_")]
    return [name for name in names if metrics[f"train_{name}"].notna().any()]


def heading(name: str) -> str:
    """The title of a panel."""
    return HEADINGS.get(name, name.replace("_", " ").capitalize())


def scatter(
    points: Float[np.ndarray, "N 2"],
    labels: Int64[np.ndarray, " N"] | None,
    classes: Sequence[str],
    axis_names: tuple[str, str],
) -> str:
    """Points in a plane as SVG for a page, with the same scale on both axes.

    The colour and shape of a point tell its class; all are alike where `labels` is None.
    """
    import seaborn as sns

    with _figure(10.0, 5.0) as figure:
        axes = figure.subplots()
        groups = [np.arange(len(points))]
        if labels is not None and 1 < len(classes) <= LEGEND_CLASSES:
            groups = [np.flatnonzero(labels == number) for number in range(len(classes))]
        palette = sns.color_palette("colorblind", 10)
        for number, rows in enumerate(groups):
            colour, shape = palette[number % 10], "os^Dv<>"[number % 7]
            axes.scatter(
                points[rows, 0], points[rows, 1], s=22, color=colour, marker=shape, alpha=0.8, linewidth=0
            )
        axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.05)
        axes.locator_params(nbins=7)
        if len(groups) > 1:  # names are set afterwards: an underscore would hide one, dollars be mathematics
            style = {"frameon": False, "bbox_to_anchor": (1, 0.5), "markerscale": 1.4, "labelcolor": INK}
            key = axes.legend(axes.collections, ["x"] * len(classes), loc="center left", **style)
            for text, name in zip(key.get_texts(), classes, strict=True):
                short = name if len(name) <= LEGEND_WIDTH else name[: LEGEND_WIDTH - 1] + ELLIPSIS
                text.set(text=short, parse_math=False)
        return _svg(figure)


@contextmanager
def _figure(width: float, height: float) -> "Iterator[Figure]":
    """An empty figure in the style of all graphs."""
    import seaborn as sns
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    colours = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    style = {"grid.color": SOFT, "axes.edgecolor": SOFT, "axes.facecolor": "none", **colours}
    with (
        sns.axes_style("whitegrid", style),
        rc_context({"svg.fonttype": "none", "font.size": 11}),
        warnings.catch_warnings(action="ignore", category=UserWarning),  # of letters that the font lacks
    ):
        yield Figure(figsize=(width, height), layout="constrained")


def _draw_panel(
    axes: "Axes", metrics: "pd.DataFrame", name: str, title: str | None = None, latent_noise: float = 0.0
) -> None:
    """Training and validation values of every epoch; the best one, whose weights the model has, is marked."""
    import seaborn as sns
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    palette = sns.color_palette("colorblind")
    epochs = metrics["epoch"].to_numpy()
    train = "train, noise on latents" if latent_noise else "train"
    splits = (("train", train, palette[0], "o"), ("val", "validation", palette[1], "s"))
    for split, label, colour, shape in splits:
        marker = shape if len(metrics) <= 25 else None
        axes.plot(epochs, metrics[f"{split}_{name}"], color=colour, label=label, marker=marker, markersize=4)
    if metrics["val_loss"].notna().any():
        best = metrics.iloc[int(np.nanargmin(metrics["val_loss"]))]
        axes.axvline(best["epoch"], color=INK, linestyle=":", linewidth=1)
        axes.plot(best["epoch"], best[f"val_{name}"], "o", color="none", markeredgecolor=INK, markersize=9)
        if name == "loss":
            text = f"dotted: best epoch ({best['epoch']:,.0f})"
            axes.set_title(text, loc="right", fontsize=10, color=INK)
    values = metrics[[f"train_{name}", f"val_{name}"]].to_numpy(float)
    axes.set_title(title or heading(name), loc="left", fontsize=12, color=INK)
    axes.set_xlabel(f"epoch{_clip(axes, values)}")
    axes.set_ylabel("squared error" if title == SECOND_STAGE else "nats per image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.xaxis.set_major_formatter(FuncFormatter(_number))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
    axes.spines[["top", "right"]].set_visible(False)
    if name == "loss":
        axes.legend(title=None, frameon=False, loc="best")


def _clip(axes: "Axes", values: Float[np.ndarray, "N 2"]) -> str:
    """Limit the vertical axis so that the first epochs do not flatten the others; return what is left out.

    The upper limit is three times as far from the lowest value as the median is, or further where more than a
    fifth of the values would lie above it.
    """
    finite = values[np.isfinite(values)]
    if len(values) < MIN_EPOCHS_TO_CLIP or not len(finite):
        return ""
    low, middle, most = np.quantile(finite, [0, 0.5, 0.8])
    high = max(low + 3 * (middle - low), most)
    if finite.max() <= high + 0.25 * (high - low) or high == low:
        return ""
    margin = 0.05 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    count = int((np.nan_to_num(values, nan=-np.inf) > high + margin).any(1).sum())
    highest = finite.max()
    text = _number(highest) if highest >= 100 else f"{highest:.3g}"
    return f" ({count:,} above the scale, up to {text})"


def _number(value: float, _: object = None) -> str:
    """A number with separators of thousands, without the noise of its last digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.10g}"


def _svg(figure: "Figure") -> str:
    """A figure as SVG that stands inside a page, with its font and its colours of ink and grid."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r' id="[A-Za-z0-9.]+_[0-9]+"', "", text[text.index("<svg") :])
    return text.replace(INK, "currentColor").replace(SOFT, "var(--line)")
