"""The HTML of a report: sections, figures whose pictures stand in the page itself, and its style, light and dark."""

import base64
import html
from collections.abc import Iterable, Sequence

from PIL import Image

from vaekit.plots import grids


def section(title: str, text: str, parts: Iterable[str]) -> list[str]:
    return [f"<section><h2>{title}</h2><p>{text}</p>{''.join(parts)}</section>"]


def note(text: str) -> str:
    return f"<p class=note>{html.escape(text)}</p>"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of a name and a text, or of the cells of columns; one without a name stands under the row above it."""
    lines = []
    for (name, *cells), (below, *_) in zip(rows, [*rows[1:], ["-"]], strict=True):
        row_class = " ".join(["under"] * (not name) + ["over"] * (not below) + ["cells"] * (len(cells) > 1))
        cells_html = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr class="{row_class}"><th>{html.escape(name)}</th>{cells_html}</tr>')
    return f"<div class=scroll><table class=figures>{''.join(lines)}</table></div>"


def figure(sheet: Image.Image, caption: str = "") -> str:
    text = html.escape(caption)
    width = f' style="width:{sheet.width}px"'
    return f'<figure><img src="{data(grids.png(sheet))}" alt="{text}"{width}><figcaption>{text}</figcaption></figure>'


def data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #23262b; --soft: #667; --line: #e2e3e6;
  --accent: #0b6bb0; --good: #1d7a46; --bad: #a8480a }
@media (prefers-color-scheme: dark) { :root { --paper: #15171b; --card: #1e2127; --ink: #e6e7ea; --soft: #9aa0ab;
  --line: #343842; --accent: #6db7f2; --good: #6fce97; --bad: #f2a264 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1080px; padding: 32px 24px 64px; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif }
h1 { margin: 0 0 16px; font-size: 30px; letter-spacing: -.01em } h2 { margin: 0 0 4px; font-size: 21px }
h3 { margin: 20px 0 6px; font-size: 15px; font-weight: 600 }
p { margin: 0 0 14px; color: var(--soft); max-width: 78ch }
section { margin-top: 28px; padding: 22px 24px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px 28px; margin: 0 }
dt { color: var(--soft); font-size: 13px } dd { margin: 0; font-weight: 600 }
figure { margin: 0 0 14px }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px }
figcaption { margin-top: 6px; color: var(--soft); font-size: 14px }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { padding: 3px 18px 3px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { font-weight: 500; color: var(--soft); white-space: nowrap }
.over th, .over td { border-bottom: 0; padding-bottom: 0 } .cells td { text-align: right; white-space: nowrap }
.under.cells td { color: var(--soft); font-size: 12px; padding-top: 0 }
.scroll { overflow-x: auto } .scroll + figure { margin-top: 14px }
details { margin: 8px 0 } summary { cursor: pointer; color: var(--accent) }
pre { margin: 8px 0; padding: 10px 12px; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--paper);
  border: 1px solid var(--line);
  border-radius: 6px; font: 13px/1.5 ui-monospace, monospace }
code { font: 0.9em ui-monospace, monospace } .note, .faults strong { color: var(--bad) } .good { color: var(--good) }
.faults { margin: 0; padding: 0; list-style: none } .faults li { margin-bottom: 14px }
.faults strong::after { content: "." }
"""


PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: vaekit report</title><style>{style}</style></head>
<body>
{body}
</body>
</html>
"""
