"""Curves: the loss of every epoch as a graph."""

import io
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


HEADINGS = {
    "kl": "KL divergence",
    "mmd": "Maximum mean discrepancy",
    "l2": "Squared length of latents, halved",
}


def loss_graph(metrics: "pd.DataFrame", title: str) -> bytes:
    """The loss of every epoch as a PNG: total, reconstruction, KL and whatever else the objective reports, train and
    validation, in nats per image."""
    import pandas as pd
    import seaborn as sns
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    reported = [name.removeprefix("train_") for name in metrics.columns if name.startswith("train_")]
    names = [name for name in reported if metrics[f"train_{name}"].notna().any()]
    panels = {name: HEADINGS.get(name, name.replace("_", " ").capitalize()) for name in names}
    rows = -(-len(panels) // 3)
    splits = {"train": "train", "val": "validation"}
    parts = [
        pd.DataFrame(
            {"epoch": metrics["epoch"], "nats": metrics[f"{split}_{name}"], "panel": name, "split": label}
        )
        for split, label in splits.items()
        for name in panels
    ]
    table = pd.concat(parts, ignore_index=True)
    with sns.axes_style("whitegrid", {"grid.color": "#e6e6e6", "axes.edgecolor": "#999999"}):
        figure = Figure(figsize=(12, 0.4 + 3.8 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = list(figure.subplots(rows, 3, squeeze=False).flat)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes, (name, heading) in zip(grid, panels.items(), strict=False):
            sns.lineplot(
                table[table["panel"] == name],
                x="epoch",
                y="nats",
                hue="split",
                style="split",
                palette="colorblind",
                markers=len(metrics) <= 25,
                dashes=False,
                errorbar=None,
                ax=axes,
                legend=name == "loss",
            )
            axes.set_title(heading, loc="left", fontsize=12)
            axes.set_ylabel("nats per image" if name == "loss" else "")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            sns.despine(ax=axes)
            if name == "loss":
                axes.legend(title=None, frameon=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, parse_math=False)
    return drawn(figure)


def drawn(figure: "Figure") -> bytes:
    """A matplotlib figure as a PNG; names whose letters the font lacks are no reason to warn of it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def short(name: str, limit: int = 24) -> str:
    """A name that fits beside a graph."""
    return name if len(name) <= limit else f"{name[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"
