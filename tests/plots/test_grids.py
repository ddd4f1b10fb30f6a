"""Grids: tiles of a readable size with an edge, titles, and labels that tell files apart."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from vaekit.plots import grids
from vaekit.plots.labels import ELLIPSIS, file_labels, fit_labels, shorten

FONT = ImageFont.load_default(12)


def blank(count: int = 4, size: int = 8, channels: int = 1) -> np.ndarray:
    return np.full((count, size, size, channels), 255, np.uint8)


@pytest.mark.parametrize(("size", "factor"), [(8, 12), (28, 4), (32, 3), (64, 2), (96, 1), (300, 1)])
def test_tiles_have_96_pixels_by_whole_factors(size: int, factor: int) -> None:
    assert grids.zoom(size, size // 2) == factor
    sheet = grids.grid(blank(2, size), 2)
    assert sheet.width == 2 * grids.MARGIN + 2 * size * factor + grids.GAP


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_white_tiles_have_an_edge_and_keep_their_pixels(channels: int) -> None:
    pixels = np.asarray(grids.grid(blank(1, 96, channels)))
    inside = slice(grids.MARGIN, grids.MARGIN + 96)
    assert (pixels[inside, inside] == 255).all()
    assert (pixels[inside, grids.MARGIN - 1] == grids.EDGE).all() and (pixels[0] == 255).all()


def test_titles_are_wrapped_not_cut() -> None:
    plain, titled = grids.grid(blank(1)), grids.grid(blank(1), title="A title of many words " * 5)
    assert titled.height > plain.height + 2 * grids.TITLE_HEIGHT and titled.width >= grids.MIN_TITLE
    ink = np.asarray(titled)[grids.MARGIN : titled.height - plain.height].min(axis=(0, 2))
    assert (ink[-grids.MARGIN :] == 255).all()


def test_labels_show_where_they_differ() -> None:
    assert fit_labels(["rain", "rain"], FONT, 90) == [[], []]
    assert grids.grid(blank(), labels=["rain"] * 4).size == grids.grid(blank()).size
    assert grids.grid(blank(), labels=["rain", "sun", "rain", "sun"]).height > grids.grid(blank()).height
    starts = [f"{start}-photograph-of-the-holidays-by-the-sea" for start in ("a", "b")]
    names = [f"{start}-{i}" for start in starts for i in range(10, 14)]
    lines = fit_labels(names, FONT, 90)
    assert len({tuple(one) for one in lines}) == len(names)
    assert all(len(one) == 2 and all(FONT.getlength(line) <= 90 for line in one) for one in lines)
    assert fit_labels([f"{names[0]}\n1,234", "b\n5"], FONT, 90)[0][-1] == "1,234"
    (lines, _) = fit_labels(["a very long name of a file that is not like any other", "b"], FONT, 90)
    assert len(lines) == 2 and lines[0] == "a very long" and lines[1].endswith(ELLIPSIS)
    assert shorten("wide", FONT, 1) == ELLIPSIS


def test_file_labels_omit_folder_and_extension() -> None:
    assert file_labels(["a/1.png", "b/2.tar.png"]) == ["1", "2.tar"]
    assert file_labels([Path("a/1.png"), Path("b/1.png"), Path("b/3.png")]) == ["a/1", "b/1", "3"]
    assert file_labels(["a/1.png", "a/1.jpg"]) == ["1.png", "1.jpg"]


def test_every_kind_of_sheet_has_a_title() -> None:
    images = blank(6)
    sheets = {
        grids.strip: (*images[:2], images, ("a", "b")),
        grids.table: (images[None], ["z1"], [*"abcdef"]),
    }
    assert grids.grid(images, below=[images]).height > grids.grid(images).height
    for sheet, contents in sheets.items():
        plain, titled = sheet(*contents), sheet(*contents, title="A title")
        assert titled.height == plain.height + grids.TITLE_HEIGHT + grids.GAP
    assert grids.stack([plain, titled]).height == plain.height + titled.height
