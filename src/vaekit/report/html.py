"""What a page is made of, and the page, which template.html makes of it. All texts are escaped there."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8
from PIL import ImageFont

from vaekit.plots import grids
from vaekit.plots.labels import fit_labels
from vaekit.utils.files import printable

Images = UInt8[np.ndarray, "N H W C"]

CONTENT_WIDTH = 1186
"""Pixels across a section of the page on a wide screen."""
TILE_GAP = 8
"""Pixels between tiles, at least."""
TABLE_GAP = 4
"""Pixels between the tiles of a table."""
LABEL_SIZE = 14
"""The size at which labels are measured: that of the page, 12, with some space for wider fonts."""


@dataclass(frozen=True)
class Cell:
    """One image, or several above each other, and a label."""

    images: tuple[str, ...]
    alt: str
    label: Sequence[str] = ()
    """Its lines."""


@dataclass(frozen=True)
class Tiles:
    """Cells side by side, as many in a row as fit."""

    kind: ClassVar[str] = "tiles"
    cells: list[Cell]
    width: int
    """Pixels across a tile."""
    sharp: bool
    """Whether pixels are magnified by a whole factor."""
    caption: str = ""


@dataclass(frozen=True)
class TileTable:
    """Rows of tiles under the names of columns, each row with its name."""

    kind: ClassVar[str] = "tile_table"
    rows: list[tuple[str, list[Cell]]]
    columns: Sequence[str]
    width: int
    sharp: bool
    caption: str = ""


@dataclass(frozen=True)
class Graphs:
    """Graphs side by side: SVG, and a text for who cannot see it."""

    kind: ClassVar[str] = "graphs"
    graphs: list[tuple[str, str]]
    caption: str = ""


@dataclass(frozen=True)
class Sheet:
    """A PNG file."""

    kind: ClassVar[str] = "sheet"
    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Rows:
    """Names, each with a text or the cells of columns; a row without a name belongs to the one above."""

    kind: ClassVar[str] = "rows"
    rows: Sequence[Sequence[str]]
    title: str = ""
    """Of a table that always shows."""
    summary: str = ""
    """Of a table that opens with a click."""


@dataclass(frozen=True)
class Faults:
    """The diagnosis: (name, explanation, command) of each fault."""

    kind: ClassVar[str] = "faults"
    faults: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Code:
    """A command."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the page; words between backticks in its text are code."""

    title: str
    text: str
    blocks: Sequence[Any] = ()
    warning: bool = field(default=False, kw_only=True)

    @property
    def anchor(self) -> str:
        """Its name in the address of the page."""
        return self.title.lower().replace(" ", "-")


def render(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vaekit.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"code": _code, "with_styles": _with_styles}
    page = environment.get_template("template.html")
    return page.render(title=title, facts=facts, sections=sections, width=CONTENT_WIDTH, gap=TILE_GAP)


def _code(text: str) -> str:
    """A text with what stands between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def tile_columns(shape: tuple[int, int, int]) -> int:
    """How many images of a shape (C, H, W) fill a row of tiles on a wide screen."""
    return max(1, (CONTENT_WIDTH + TILE_GAP) // (_tile_width(shape[1:]) + TILE_GAP))


def tiles(columns: Sequence[Images], what: str, labels: Sequence[str] = (), caption: str = "") -> Tiles:
    """Images side by side, those of several arrays above each other; `what` names one in its alt text."""
    width, count = _tile_width(columns[0].shape[1:3]), len(columns[0])
    alts = [f"{what} {number}" for number in range(1, count + 1)]
    lines: list[list[str]] = [[] for _ in range(count)]
    if labels:
        labels = [printable(label) for label in labels]
        alts = [f"{alt}: {label}".replace("\n", ", ") for alt, label in zip(alts, labels, strict=True)]
        lines = fit_labels(labels, ImageFont.load_default(LABEL_SIZE), width)
    cells = [
        Cell(tuple(map(image_source, images)), alt, label)
        for *images, alt, label in zip(*columns, alts, lines, strict=True)
    ]
    return Tiles(cells, width, max(columns[0].shape[1:3]) < grids.MIN_TILE, caption)


def tile_table(
    images: UInt8[np.ndarray, "R K H W C"], rows: Sequence[str], columns: Sequence[str], caption: str = ""
) -> TileTable:
    """A table of images, magnified by the largest whole factor that fits, if that makes them large enough."""
    available = (CONTENT_WIDTH + TABLE_GAP) // len(columns) - TABLE_GAP
    width = images.shape[3] * max(1, available // images.shape[3])
    sharp = grids.MIN_TILE <= width <= available
    cells = [
        (
            name,
            [
                Cell((image_source(image),), ", ".join(filter(None, (name, column))))
                for image, column in zip(row, columns, strict=True)
            ],
        )
        for name, row in zip(rows, images, strict=True)
    ]
    return TileTable(cells, columns, width if sharp else available, sharp, caption)


def _tile_width(size: tuple[int, ...]) -> int:
    height, width = size
    return width * grids.zoom(height, width)


def image_source(image: UInt8[np.ndarray, "H W C"]) -> str:
    """An image as an address that holds it."""
    return grids.png_source(grids.png(grids.picture(image)))


def _with_styles(rows: Sequence[Sequence[str]]) -> Iterable[tuple[str, Sequence[str], str]]:
    """Name, cells and style of each row of a table of texts."""
    for (name, *cells), (below, *_) in zip(rows, [*rows[1:], ["-"]], strict=True):
        styles = {"under": not name, "over": not below, "cells": len(cells) > 1}
        yield name, cells, " ".join(style for style, applies in styles.items() if applies)
