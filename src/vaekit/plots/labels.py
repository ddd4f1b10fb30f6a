"""Short texts that fit under a tile and still tell files apart."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def file_labels(paths: Sequence[str | PurePath]) -> list[str]:
    """Names of files without folder and extension, with as much of both as it takes to tell them apart."""
    files = [PurePath(path) for path in paths]
    names = [file.stem for file in files]
    for longer in ([f"{file.parent.name}/{file.stem}" for file in files], [file.name for file in files]):
        counts = Counter(names)
        names = [one if counts[name] > 1 else name for name, one in zip(names, longer, strict=True)]
    return names


def fit_labels(labels: Sequence[str], font: Font, width: int, limit: int = 2) -> list[list[str]]:
    """The lines of each label, none where all labels are alike.

    The first paragraph of a label takes up to `limit` lines and is cut at its end, or, where that would make
    different labels equal, in its middle; each further paragraph is one line.
    """
    if len(labels) > 1 and len(set(labels)) == 1:
        return [[] for _ in labels]
    names = [label.split("\n")[0] for label in labels]
    cut = {name: wrap(name, font, width, limit) for name in names}
    shared = Counter(tuple(lines) for lines in cut.values())
    for name, lines in cut.items():
        if shared[tuple(lines)] > 1:
            cut[name] = [*lines[:-1], shorten(name, font, width, keep_end=True)]
    return [
        cut[name] + [shorten(more, font, width) for more in label.split("\n")[1:]]
        for name, label in zip(names, labels, strict=True)
    ]


def wrap(text: str, font: Font, width: int, limit: int) -> list[str]:
    """At most `limit` lines of `width` pixels, broken after a separator where there is one; the last one is
    cut off where it does not fit."""
    lines: list[str] = []
    while len(lines) < limit - 1 and font.getlength(text) > width:
        fitting = next(n for n in range(len(text), -1, -1) if font.getlength(text[:n].rstrip()) <= width)
        last = max(text.rfind(separator, 0, fitting + (separator == " ")) for separator in " -_/,")
        end = last + 1 if last + 1 > fitting // 2 else max(1, fitting)
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*lines, shorten(text, font, width)]


def shorten(text: str, font: Font, width: int, keep_end: bool = False) -> str:
    """`text` cut at its end, or at its beginning with `keep_end`, so that it fits into `width` pixels."""
    if font.getlength(text) <= width:
        return text
    for count in range(len(text) - 1, 0, -1):
        short = ELLIPSIS + text[-count:] if keep_end else text[:count].rstrip() + ELLIPSIS
        if font.getlength(short) <= width:
            return short
    return ELLIPSIS
