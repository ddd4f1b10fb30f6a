"""Arrays and numbers as pictures: grids of images and the loss graph. Nothing here knows a model."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from vaekit.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Images = UInt8[np.ndarray, "N H W C"]

PAPER, INK = (255, 255, 255), (70, 70, 70)
GAP, MARGIN = 4, 12


def picture(image: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """One image as Pillow's, gray, RGB or RGBA by its channels."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def grid(
    images: Images, columns: int | None = None, labels: Sequence[str] | None = None, title: str = ""
) -> Image.Image:
    """Images side by side on white, row by row, each with its label below; small ones magnified by whole pixels."""
    return _sheet([[image] for image in images], columns, labels, title)


def pairs(
    above: Images, below: Images, columns: int = 8, labels: Sequence[str] | None = None, title: str = ""
) -> Image.Image:
    """Each image of `above` over its partner of `below`, pair by pair, each pair with its label."""
    return _sheet([[one, other] for one, other in zip(above, below, strict=True)], columns, labels, title)


def _sheet(cells: list[list[Any]], columns: int | None, labels: Sequence[str] | None, title: str) -> Image.Image:
    height, width = cells[0][0].shape[:2]
    zoom = max(1, round(72 / max(height, width)))
    width, height = width * zoom, height * zoom
    columns = min(columns or _columns(len(cells)), len(cells))
    rows = math.ceil(len(cells) / columns)
    font = ImageFont.load_default(12)
    tall = len(cells[0]) * (height + 1) - 1 + (16 if labels else 0)
    pitch = (width + GAP, tall + (GAP if len(cells[0]) == 1 else 3 * GAP))
    head = MARGIN + (18 if title else 0)
    size = (2 * MARGIN + columns * pitch[0] - GAP, head + MARGIN + rows * pitch[1] - (pitch[1] - tall))
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 8), _shortened(title, font, float(size[0] - 2 * MARGIN)), INK, font)
    for index, cell in enumerate(cells):
        left, top = MARGIN + index % columns * pitch[0], head + index // columns * pitch[1]
        for row, image in enumerate(cell):
            tile = picture(image).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, top + row * (height + 1)), tile if tile.mode == "RGBA" else None)
        if labels:
            text = _shortened(labels[index], font, float(width))
            pen.text((left + width / 2, top + tall), text, INK, font, anchor="md")
    return sheet


def _columns(count: int) -> int:
    """Columns of a sheet that is square to twice as wide, with the fewest gaps in its last row."""
    square = math.ceil(math.sqrt(count))
    return min(range(square, 2 * square + 1), key=lambda columns: -count % columns)


def _shortened(text: str, font: Any, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


HEADINGS = {"kl": "KL divergence", "mmd": "Maximum mean discrepancy", "l2": "Squared length of latents, halved"}


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
    sides = {"train": "train", "val": "validation"}
    parts = [
        pd.DataFrame({"epoch": metrics["epoch"], "nats": metrics[f"{side}_{name}"], "panel": name, "side": label})
        for side, label in sides.items()
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
                hue="side",
                style="side",
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
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def write_folder(folder: Path, images: Mapping[str, Image.Image], overview: Image.Image) -> str:
    """Write every image under its name, and the overview as grid.png; a sentence that says so.

    Raises:
        UserError: the folder holds files already, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): name another folder with --out.") from None
    if any(folder.iterdir()):
        raise UserError(f"{folder} holds other files, which stay as they are: name a new folder with --out.")
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    overview.save(folder / "grid.png")
    return f"Wrote {len(images)} images and grid.png to {folder}"
