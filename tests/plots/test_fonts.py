"""Names in any script are drawn, or spelled by their code points; never as empty boxes."""

import numpy as np

from vaekit.plots import grids
from vaekit.plots.fonts import drawable, font_for

TILES = np.full((2, 64, 64, 3), 200, np.uint8)


def drawn(*labels: str) -> np.ndarray:
    return np.asarray(grids.grid(TILES, 2, labels).convert("L"))


def test_letters_that_are_not_ascii_differ() -> None:
    assert not np.array_equal(drawn("ÀÀÀ", "x"), drawn("ÉÉÉ", "x"))
    assert not np.array_equal(drawn("山山", "x"), drawn("水水", "x"))
    font = font_for(["Ærø", "x"], 12)
    assert font.getmask("Æ").getbbox() is not None


def test_only_missing_letters_are_spelled() -> None:
    assert drawable("plain text") == "plain text" and drawable("café Ωж") == "café Ωж"
    assert drawable("a\U0010fffd") == "a\\U0010fffd"  # no font has a private character
