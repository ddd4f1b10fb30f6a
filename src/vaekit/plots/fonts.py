"""Fonts for the texts in pictures, by the letters that these have."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from PIL import ImageFont

from vaekit.plots.labels import Font


def font_for(texts: Iterable[str], size: int) -> Font:
    """A font of `size` pixels that has the letters of all texts: Pillow's for ASCII, else DejaVu Sans, which
    comes with matplotlib, or the first of the system that has them; DejaVu Sans if none has."""
    letters = frozenset(letter for text in texts for letter in text if not letter.isascii())
    if not letters:
        return ImageFont.load_default(size)
    return ImageFont.truetype(_file_with(letters), size)


def drawable(text: str) -> str:
    """`text` with letters that no font has as their code points, such as \\u5c71, instead of empty boxes."""
    missing = {letter for letter in text if not letter.isascii() and not _has(_file_with(letter), letter)}
    parts = (one.encode("ascii", "backslashreplace").decode() if one in missing else one for one in text)
    return "".join(parts)


def _file_with(letters: Iterable[str]) -> str:
    needed = frozenset(letters)
    return next((file for file in _files() if _has(file, needed)), _files()[0])


@cache
def _files() -> tuple[str, ...]:
    """DejaVu Sans, then the fonts of the system."""
    import matplotlib
    from matplotlib import font_manager

    dejavu = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    return dejavu, *sorted(set(font_manager.findSystemFonts()) - {dejavu})


def _has(file: str, letters: Iterable[str]) -> bool:
    return _letters(file).issuperset(map(ord, letters))


@cache
def _letters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):  # a font that is damaged, or of an old format
        return frozenset()
