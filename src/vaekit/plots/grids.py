"""Grids of images as one picture."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from vaekit.plots.fonts import drawable, font_for
from vaekit.plots.labels import fit_labels, shorten, wrap
from vaekit.utils.files import atomic_file

Images = UInt8[np.ndarray, "N H W C"]

PAPER = (255, 255, 255)
"""The colour of a sheet."""
INK = (60, 60, 60)
"""The colour of its text."""
EDGE = (235, 235, 235)
"""The hairline around a tile, 8 % black: white images have an edge on white paper."""
MIN_TILE = 96
"""The longer edge of a tile is at least this many pixels."""
GAP = 6
"""Pixels between tiles."""
PAIR_GAP = 2
"""Pixels between the images of a pair."""
MARGIN = 12
"""Pixels around a sheet."""
LINE_HEIGHT = 16
"""Pixels from one line of a label to the next."""
TITLE_HEIGHT = 20
"""Pixels from one line of a title to the next."""
LABEL_SIZE, TITLE_SIZE = 12, 14
"""Sizes of texts in pixels."""
MIN_TITLE = 360
"""A title is broken into lines of no less than this many pixels."""


def zoom(height: int, width: int) -> int:
    """The whole factor by which images of this size are magnified: a tile has at least MIN_TILE pixels."""
    return math.ceil(MIN_TILE / max(height, width))


def picture(image: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """One image as Pillow's, gray, RGB or RGBA by its channels; of other bands the first three are shown."""
    channels = image.shape[-1]
    if channels in (1, 2):
        return Image.fromarray(image[..., 0])
    return Image.fromarray(image if channels in (3, 4) else np.ascontiguousarray(image[..., :3]))


def grid(
    images: Images,
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    title: str = "",
    below: Sequence[UInt8[np.ndarray, "N _ _ _"]] = (),
) -> Image.Image:
    """Images row by row on white, small ones magnified by a whole factor.

    Args:
        images: uint8 [N, H, W, C].
        columns: images in a row; by default the sheet is square to twice as wide.
        labels: a text below each image, left out where all are alike; after a line break a second text.
        title: a text above all.
        below: further images below each, as near as a pair: of each kind [N, h, w, c], in tiles of one size.
    """
    cells = list(zip(images, *below, strict=True))
    width, height = _tile_size(cells[0][0])
    labels = [drawable(label) for label in labels] if labels else None
    font = font_for(labels or (), LABEL_SIZE)
    columns = min(columns or _columns(len(cells)), len(cells))
    texts = fit_labels(labels, font, width - GAP) if labels else [[]]
    lines, depth = max(map(len, texts)), len(cells[0])
    cell_height = depth * (height + PAIR_GAP) - PAIR_GAP + LINE_HEIGHT * lines + 2 * (lines > 0)
    between = 2 * GAP if lines or depth > 1 else GAP
    content_height = math.ceil(len(cells) / columns) * (cell_height + between) - between
    sheet, pen, top = blank((columns * (width + GAP) - GAP, content_height), title)
    for index, cell in enumerate(cells):
        x, y = MARGIN + index % columns * (width + GAP), top + index // columns * (cell_height + between)
        for image in cell:
            _paste(sheet, image, (x, y))
            y += height + PAIR_GAP
        for text in texts[index] if lines else []:
            pen.text((x + width / 2, y + LINE_HEIGHT), text, INK, font, anchor="md")
            y += LINE_HEIGHT
    return sheet


def strip(
    first: UInt8[np.ndarray, "H W C"],
    last: UInt8[np.ndarray, "H W C"],
    between: Images,
    names: tuple[str, str],
    title: str = "",
) -> Image.Image:
    """An interpolation, each image with its share of the path; `first` and `last` stand at its ends."""
    shares = [f"{index / max(1, len(between) - 1):.0%}" for index in range(len(between))]
    return table([[first, *between, last]], [], [names[0], *shares, names[1]], title, end_gap=3 * GAP)


def table(
    images: Sequence[Sequence[UInt8[np.ndarray, "H W C"]]] | UInt8[np.ndarray, "R K H W C"],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    end_gap: int = 0,
) -> Image.Image:
    """Rows of images, with a name on the left of each, and one above each column.

    `end_gap` sets the first and the last column apart.
    """
    width, height = _tile_size(images[0][0])
    rows, columns = [drawable(name) for name in rows], [drawable(caption) for caption in columns]
    font = font_for([*rows, *columns], LABEL_SIZE)
    left = max((round(font.getlength(part)) + GAP for name in rows for part in name.split("\n")), default=0)
    across = len(columns) * (width + GAP) - GAP + 2 * end_gap
    caption_height = LINE_HEIGHT if any(columns) else 0
    sheet, pen, top = blank((left + across, caption_height + len(images) * (height + GAP) - GAP), title)
    tops = [top + caption_height + row * (height + GAP) for row in range(len(images))]
    for column, caption in enumerate(columns):
        gaps = (column > 0) + (column == len(columns) - 1)
        x = MARGIN + left + column * (width + GAP) + gaps * end_gap
        pen.text((x + width / 2, tops[0] - 3), shorten(caption, font, width), INK, font, anchor="md")
        for row, y in zip(images, tops, strict=True):
            _paste(sheet, row[column], (x, y))
    for name, y in zip(rows, tops, strict=False):
        pen.multiline_text((MARGIN, y + height / 2), name, INK, font, anchor="lm", spacing=3)
    return sheet


def stack(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets one below the other on white."""
    size = (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets))
    stacked = Image.new("RGB", size, PAPER)
    top = 0
    for sheet in sheets:
        stacked.paste(sheet, (0, top))
        top += sheet.height
    return stacked


def blank(content: tuple[int, int], title: str) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """A sheet for content of a size, with its title; something to draw with, and where the content begins."""
    title = drawable(title)
    font = font_for([title], TITLE_SIZE)
    paragraphs = title.split("\n") if title else []
    width = max([content[0], *(min(MIN_TITLE, math.ceil(font.getlength(text))) for text in paragraphs)])
    lines = [line for text in paragraphs for line in wrap(text, font, width, 4)]
    top = MARGIN + (TITLE_HEIGHT * len(lines) + GAP if lines else 0)
    sheet = Image.new("RGB", (width + 2 * MARGIN, top + content[1] + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, line in enumerate(lines):
        pen.text((MARGIN, MARGIN - 2 + index * TITLE_HEIGHT), line, INK, font)
    return sheet, pen, top


def _paste(sheet: Image.Image, image: UInt8[np.ndarray, "H W C"], place: tuple[int, int]) -> None:
    """Draw a tile with a hairline around it, which takes no pixel of the image."""
    tile = picture(image).resize(_tile_size(image), Image.Resampling.NEAREST)
    (left, top), (width, height) = place, tile.size
    ImageDraw.Draw(sheet).rectangle((left - 1, top - 1, left + width, top + height), outline=EDGE)
    sheet.paste(tile, place, tile if tile.mode == "RGBA" else None)


def _tile_size(image: UInt8[np.ndarray, "H W C"]) -> tuple[int, int]:
    """Width and height of an image on a sheet."""
    height, width = image.shape[:2]
    factor = zoom(height, width)
    return width * factor, height * factor


def _columns(count: int) -> int:
    """Columns of a sheet that is square to twice as wide, with the fewest gaps in its last row."""
    square = math.ceil(math.sqrt(count))
    return min(range(square, 2 * square + 1), key=lambda columns: -count % columns)


def png(image: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def png_source(png: bytes) -> str:
    """The content of a PNG file as an address that holds it, for HTML."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def write(path: Path, image: Image.Image, durable: bool = True) -> None:
    """Write a picture to a PNG file, whole or not at all; if `durable`, also after a power cut."""
    with atomic_file(path, durable) as temporary:
        temporary.write_bytes(png(image))
