"""The content of a page, and its HTML by template.html, which escapes all texts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup, escape
from PIL import ImageFont

from vaekit.plots import grids
from vaekit.plots.labels import fit_labels
from vaekit.utils.files import printable

CONTENT_WIDTH = 1186
"""Pixels across a section of the page on a wide screen."""
TILE_GAP = 8
"""Pixels between tiles, at least."""
TABLE_GAP = 4
"""Pixels between the tiles of a table."""
LABEL_SIZE = 14
"""The size at which labels are measured: that of the page, 12, with some space for wider fonts."""


@dataclass(frozen=True)
class Block:
    """`content` that the macro `kind` of template.html draws.

    - tiles: images side by side, in rows of `columns`, or on a narrow screen as many as fit. `cells` have the
      sources of images above each other, their alternative text, and the lines of a label; `width` is that of
      a tile in pixels; `sharp` is whether pixels are magnified by a whole factor.
    - tile_table: `columns` are names, each of the `rows` has a name, and source and alternative text of each
      image; `width` and `sharp` are as above.
    - rows: names, each with a text or the cells of columns; a row without a name belongs to the one above. A
      table with a `title` always shows, one with a `summary` opens with a click.
    - graphs: SVG and alternative text of each; sheet: source and alternative text of a PNG file; faults: the
      findings of the diagnosis; code: a command.
    """

    kind: str
    content: Any
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page; words between backticks in its text are code."""

    title: str
    text: str
    blocks: Sequence[Block] = ()
    warning: bool = False


def render(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("vaekit.report", "")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["code"] = _code
    page = environment.get_template("template.html")
    return page.render(title=title, facts=facts, sections=sections, width=CONTENT_WIDTH, gap=TILE_GAP)


def _code(text: str) -> str:
    """A text in which words between backticks are code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def tile_columns(shape: tuple[int, int, int]) -> int:
    """How many images of a shape (C, H, W) fill a row of tiles on a wide screen."""
    _, height, width = shape
    return max(1, (CONTENT_WIDTH + TILE_GAP) // (width * grids.zoom(height, width) + TILE_GAP))


def tiles(columns: Sequence[grids.Images], alt: str, labels: Sequence[str] = (), caption: str = "") -> Block:
    """Images side by side, those of several arrays above each other; `alt` names one of them."""
    count, height, width, _ = columns[0].shape
    tile_width = width * grids.zoom(height, width)
    alts = [f"{alt} {number}" for number in range(1, count + 1)]
    lines: list[list[str]] = [[] for _ in range(count)]
    if labels:
        labels = [printable(label) for label in labels]
        alts = [f"{name}: {label}".replace("\n", ", ") for name, label in zip(alts, labels, strict=True)]
        lines = fit_labels(labels, ImageFont.load_default(LABEL_SIZE), tile_width)
    cells = [
        (list(map(image_source, images)), name, label)
        for *images, name, label in zip(*columns, alts, lines, strict=True)
    ]
    sharp = max(height, width) < grids.MIN_TILE
    content = {
        "cells": cells,
        "width": tile_width,
        "columns": tile_columns((1, height, width)),
        "sharp": sharp,
    }
    return Block("tiles", content, caption)


def tile_table(images: UInt8[np.ndarray, "R K H W C"], rows: Sequence[str], columns: Sequence[str]) -> Block:
    """A table of images, magnified by the largest whole factor that fits, if that makes them large enough."""
    available = (CONTENT_WIDTH + TABLE_GAP) // len(columns) - TABLE_GAP
    width = images.shape[3] * max(1, available // images.shape[3])
    sharp = grids.MIN_TILE <= width <= available
    table = []
    for name, row in zip(rows, images, strict=True):
        alts = [", ".join(filter(None, (name, column))) for column in columns]
        table.append((name, list(zip(map(image_source, row), alts, strict=True))))
    width = width if sharp else available
    return Block("tile_table", {"rows": table, "columns": columns, "width": width, "sharp": sharp})


def text_table(rows: Sequence[Sequence[str]], title: str = "", summary: str = "") -> Block:
    return Block("rows", {"rows": rows, "title": title, "summary": summary})


def image_source(image: UInt8[np.ndarray, "H W C"]) -> str:
    """An image as an address that holds it."""
    return grids.png_source(grids.png(grids.picture(image)))
