"""The content of a page, and its HTML by template.html, which escapes all texts."""

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
class Tiles:
    """Cells side by side, as many in a row as fit."""

    kind: ClassVar[str] = "tiles"
    cells: list[tuple[list[str], str, list[str]]]
    """Sources of images above each other, their alternative text, and the lines of a label."""
    width: int
    """Pixels across a tile."""
    sharp: bool
    """Whether pixels are magnified by a whole factor."""
    caption: str = ""


@dataclass(frozen=True)
class TileTable:
    """Rows of tiles under the names of columns, each row with its name."""

    kind: ClassVar[str] = "tile_table"
    rows: list[tuple[str, list[tuple[str, str]]]]
    """The source and alternative text of each image."""
    columns: Sequence[str]
    width: int
    sharp: bool


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
class Block:
    """`content` that the macro `kind` of template.html draws.

    graphs: SVG and alternative text of each; sheet: source and alternative text of a PNG file; faults: name,
    explanation and command of each; code: a command.
    """

    kind: str
    content: Any
    caption: str = ""


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

    loader = PackageLoader("vaekit.report", "")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"code": _code, "with_styles": _with_styles}
    page = environment.get_template("template.html")
    return page.render(title=title, facts=facts, sections=sections, width=CONTENT_WIDTH, gap=TILE_GAP)


def _code(text: str) -> str:
    """A text in which words between backticks are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def tile_columns(shape: tuple[int, int, int]) -> int:
    """How many images of a shape (C, H, W) fill a row of tiles on a wide screen."""
    _, height, width = shape
    return max(1, (CONTENT_WIDTH + TILE_GAP) // (width * grids.zoom(height, width) + TILE_GAP))


def tiles(columns: Sequence[Images], alt: str, labels: Sequence[str] = (), caption: str = "") -> Tiles:
    """Images side by side, those of several arrays above each other; `alt` names one of them."""
    count, height, width, _ = columns[0].shape
    alts = [f"{alt} {number}" for number in range(1, count + 1)]
    lines: list[list[str]] = [[] for _ in range(count)]
    if labels:
        labels = [printable(label) for label in labels]
        alts = [f"{name}: {label}".replace("\n", ", ") for name, label in zip(alts, labels, strict=True)]
        lines = fit_labels(labels, ImageFont.load_default(LABEL_SIZE), width * grids.zoom(height, width))
    cells = [
        (list(map(image_source, images)), name, label)
        for *images, name, label in zip(*columns, alts, lines, strict=True)
    ]
    return Tiles(cells, width * grids.zoom(height, width), max(height, width) < grids.MIN_TILE, caption)


def tile_table(
    images: UInt8[np.ndarray, "R K H W C"], rows: Sequence[str], columns: Sequence[str]
) -> TileTable:
    """A table of images, magnified by the largest whole factor that fits, if that makes them large enough."""
    available = (CONTENT_WIDTH + TABLE_GAP) // len(columns) - TABLE_GAP
    width = images.shape[3] * max(1, available // images.shape[3])
    sharp = grids.MIN_TILE <= width <= available
    table = []
    for name, row in zip(rows, images, strict=True):
        alts = [", ".join(filter(None, (name, column))) for column in columns]
        sources = [image_source(image) for image in row]
        table.append((name, list(zip(sources, alts, strict=True))))
    return TileTable(table, columns, width if sharp else available, sharp)


def image_source(image: UInt8[np.ndarray, "H W C"]) -> str:
    """An image as an address that holds it."""
    return grids.png_source(grids.png(grids.picture(image)))


def _with_styles(rows: Sequence[Sequence[str]]) -> Iterable[tuple[str, Sequence[str], str]]:
    """Name, cells and style of each row of a table of texts."""
    for (name, *cells), (below, *_) in zip(rows, [*rows[1:], ["-"]], strict=True):
        styles = {"under": not name, "over": not below, "cells": len(cells) > 1}
        yield name, cells, " ".join(style for style, applies in styles.items() if applies)
