"""Help as plain lines: a heading per group, a line per option."""

import re
from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from vaekit.cli.flags import COMMON, COMMON_OPTIONS

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

FLAG_ALL = "--help-all"
"""Shows every option of a command that has more than the common ones."""
KIND_LINE = r"\n(?=\w+(?:, \w+)*: )"
"""Starts a line of its own: `iaf, nsf: ...`. Other lines end where a docstring was wrapped."""


class HelpFormatter:
    """Formats the help of all commands.

    A command with common options shows these alone, with the first sentence of each, unless `show_all`.
    """

    def __init__(self) -> None:
        self.show_all = False

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        console.print(f"Usage: {str(usage).strip().removeprefix('Usage: ')}\n", soft_wrap=True)

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        console.print(_plain(description), highlight=False, markup=False)

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        title, entries = str(panel.title), panel.entries
        if not entries:
            return
        if title == COMMON.name:
            entries = sorted(entries, key=lambda entry: COMMON_OPTIONS.index(entry.names[0]))
        elif panel.format == "parameter" and title not in ("Arguments", "Options") and not self.show_all:
            return
        rows = [(_label(entry), _description(entry, self.show_all)) for entry in entries]
        width = max(len(label) for label, _ in rows)
        note = _plain(panel.description)
        console.print(f"\n{title}{f' ({note})' if note else ''}:", highlight=False, markup=False)
        column = max(console.width - width - 4, 20)
        for label, description in rows:
            lines: list[str] = []
            for line in re.split(KIND_LINE, description):
                lines += wrap(line, column, subsequent_indent="  ", break_on_hyphens=False)
            for start, line in zip_longest((label,), lines, fillvalue=""):
                text = f"  {start:<{width}}  {line}".replace("\xa0", " ")
                console.print(text.rstrip(), highlight=False, markup=False, soft_wrap=True)


def _plain(renderable: Any) -> str:
    """The text of what cyclopts would print, not wrapped."""
    from rich.console import Console

    console = Console(width=10_000, color_system=None)
    with console.capture() as capture:
        console.print(renderable, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in capture.get().strip().splitlines())


def _label(entry: "HelpEntry") -> str:
    """`--epochs INT`, `-n INT`, `RUN`."""
    if entry.positional_label:
        return entry.positional_label
    names = ", ".join([*entry.shorts, *entry.positive_names])
    return f"{names} {entry.metavar}" if entry.metavar else names


def _description(entry: "HelpEntry", full: bool) -> str:
    text = _plain(entry.description)
    if not full:
        text = re.split(r"(?<=\.)\s", text, maxsplit=1)[0]
    details = []
    if entry.choices and not all(choice in text for choice in entry.choices):
        details.append(", ".join(entry.choices))
    if entry.default not in (None, "False", "None") and "default" not in text:
        details.append(f"default: {entry.default.removesuffix('.0')}".replace(" ", "\xa0"))
    return f"{text} ({'; '.join(details)})" if details else text
