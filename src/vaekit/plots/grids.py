"""Grids of images. Nothing here knows a model."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from vaekit.errors import UserError
from vaekit.utils.files import atomic_file

Images = UInt8[np.ndarray, "N H W C"]


PAPER = (255, 255, 255)
"""The colour of a sheet."""

INK = (70, 70, 70)
"""The colour of its text."""

GAP = 4
"""Pixels between tiles."""

MARGIN = 12
"""Pixels around a sheet."""

LINE_HEIGHT = 16
"""Pixels from one line of text to the next."""


def picture(image: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """One image as Pillow's, gray, RGB or RGBA by its channels."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def grid(
    images: Images, columns: int | None = None, labels: Sequence[str] | None = None, title: str = ""
) -> Image.Image:
    """Images side by side on white, row by row, each with its label below, of as many lines as all others; small
    ones magnified by whole pixels."""
    return _sheet([[image] for image in images], columns, labels, title)


def pairs(
    above: Images, below: Images, columns: int = 8, labels: Sequence[str] | None = None, title: str = ""
) -> Image.Image:
    """Each image of `above` over its partner of `below`, pair by pair, each pair with its label."""
    return _sheet([[one, other] for one, other in zip(above, below, strict=True)], columns, labels, title)


def _sheet(cells: list[list[Any]], columns: int | None, labels: Sequence[str] | None, title: str) -> Image.Image:
    height, width = cells[0][0].shape[:2]
    zoom = _zoom(height, width)
    width, height = width * zoom, height * zoom
    columns = min(columns or _columns(len(cells)), len(cells))
    rows = math.ceil(len(cells) / columns)
    font = ImageFont.load_default(12)
    tall = len(cells[0]) * (height + 1) - 1 + (LINE_HEIGHT * (1 + labels[0].count("\n")) if labels else 0)
    between = 3 * GAP if len(cells[0]) > 1 or (labels and "\n" in labels[0]) else GAP
    pitch = (width + GAP, tall + between)
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
            for line, text in enumerate(reversed(labels[index].split("\n"))):
                place = (left + width / 2, top + tall - LINE_HEIGHT * line)
                pen.text(place, _shortened(text, font, float(width - GAP), middle=True), INK, font, anchor="md")
    return sheet


def strip(
    first: UInt8[np.ndarray, "H W C"],
    last: UInt8[np.ndarray, "H W C"],
    between: Images,
    names: tuple[str, str],
    title: str = "",
) -> Image.Image:
    """Images on the way from `first` to `last`, each with how far it is; those two, named, at the ends."""
    ways = [f"{index / max(1, len(between) - 1):.0%}" for index in range(len(between))]
    tiles = [[(first, names[0])], list(zip(between, ways, strict=True)), [(last, names[1])]]
    return _lines([tiles], title=title)


def table(
    images: UInt8[np.ndarray, "R K H W C"], rows: Sequence[str], columns: Sequence[str], title: str = ""
) -> Image.Image:
    """Rows of images, with a name on the left of each, and one above each column."""
    lines = [
        [list(zip(row, columns if index == 0 else [""] * len(row), strict=True))] for index, row in enumerate(images)
    ]
    return _lines(lines, rows, title)


Tiles = list[tuple[UInt8[np.ndarray, "H W C"], str]]


def _lines(lines: Sequence[Sequence[Tiles]], names: Sequence[str] = (), title: str = "") -> Image.Image:
    """Lines of groups of tiles, wide gaps between groups, a caption above each tile that has one, names on the left."""
    height, width = lines[0][0][0][0].shape[:2]
    zoom = _zoom(height, width)
    width, height = width * zoom, height * zoom
    font = ImageFont.load_default(12)
    names_width = (
        max((round(font.getlength(part)) for name in names for part in name.split("\n")), default=-MARGIN) + MARGIN
    )
    heading = title.split("\n") if title else []
    top = MARGIN + len(heading) * LINE_HEIGHT + (GAP if heading else 0)
    across = max(sum(len(tiles) * (width + GAP) - GAP + 2 * MARGIN for tiles in line) - 2 * MARGIN for line in lines)
    captions = LINE_HEIGHT if any(text for tiles in lines[0] for _, text in tiles) else 0
    size = (2 * MARGIN + names_width + across, top + captions + len(lines) * (height + GAP) - GAP + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, text in enumerate(heading):
        pen.text((MARGIN, 8 + index * LINE_HEIGHT), _shortened(text, font, float(size[0] - 2 * MARGIN)), INK, font)
    top += captions
    for index, line in enumerate(lines):
        left = MARGIN + names_width
        if names:
            middle = (MARGIN, top + height / 2)
            pen.multiline_text(middle, names[index], INK, font, anchor="lm", spacing=3)
        for tiles in line:
            for image, text in tiles:
                tile = picture(image).resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(tile, (left, top), tile if tile.mode == "RGBA" else None)
                short = _shortened(text, font, float(width - GAP), middle=True)
                pen.text((left + width / 2, top - 3), short, INK, font, anchor="md")
                left += width + GAP
            left += 2 * MARGIN - GAP
        top += height + GAP
    return sheet


def stack(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets one below the other on white."""
    size = max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)
    whole = Image.new("RGB", size, PAPER)
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def _zoom(height: int, width: int) -> int:
    return max(1, round(72 / max(height, width)))


def _columns(count: int) -> int:
    """Columns of a sheet that is square to twice as wide, with the fewest gaps in its last row."""
    square = math.ceil(math.sqrt(count))
    return min(range(square, 2 * square + 1), key=lambda columns: -count % columns)


def _shortened(text: str, font: Any, width: float, middle: bool = False) -> str:
    """Text that fits: its end cut off, or its middle, where names are told apart by their ends."""
    if font.getlength(text) <= width:
        return text
    length = len(text) - 1
    while length > 0:
        head = length // 3 if middle else length
        short = f"{text[:head]}…{text[len(text) - (length - head) :]}"
        if font.getlength(short) <= width:
            return short
        length -= 1
    return "…"


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def write(path: Path, image: Image.Image) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(png(image))


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
    return f"Wrote {len(images):,} image{'s' * (len(images) != 1)} and grid.png to {folder}"
