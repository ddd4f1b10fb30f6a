"""What the user sees while vaekit works: log lines, phases and progress, on a terminal and without one."""

import logging
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vaekit.errors import spelled
from vaekit.utils.meter import Advance, Meter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


FIRST_LINE_SECONDS = 4.0
"""Without a terminal, seconds until the first report of a phase; the interval doubles each time."""


LINE_SECONDS = 30.0
"""Without a terminal, the longest interval between two reports."""


FIGURES_WIDTH = 60
"""Columns of a bar's row that the count, the speed and the time left take."""


# --- Log lines
# -------------------------------------------------------------------------------------------------------


def _spell(record: logging.LogRecord) -> bool:
    record.msg, record.args = spelled(record.getMessage()), ()
    return True


log = logging.getLogger("vaekit")
"""The logger of the package. It spells settings marked by `vaekit.errors.setting` for all handlers."""
log.addFilter(_spell)


@cache
def console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, soft_wrap=True)


def wrapped(text: str, width: int) -> str:
    """Wrap `text` to `width` columns between words; continuation lines are indented by two more.

    Commands, which stand in backticks or end a line after a colon, are not broken, to be copied.
    """
    lines = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        whole = re.sub(r"`[^`]*`|(?<=: )vaekit .*", lambda match: match[0].replace(" ", "\xa0"), line)
        pieces = textwrap.wrap(
            whole,
            max(width, len(indent) + 20),
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += [piece.replace("\xa0", " ") for piece in pieces] or [""]
    return "\n".join(lines)


def fit_terminal(text: str) -> str:
    """`text` wrapped to the width of the terminal; unchanged where the output goes elsewhere."""
    return wrapped(text, console().width) if console().is_terminal else text


def _print(text: str) -> None:
    """Print above a progress bar. Training continues silently once the reader is gone (`... | head`)."""
    with suppress(OSError, UnicodeError, SystemExit):  # rich raises SystemExit on a broken pipe
        console().print(fit_terminal(text))


class ConsoleHandler(logging.Handler):
    """Prints log lines on the screen."""

    def emit(self, record: logging.LogRecord) -> None:
        _print(self.format(record))


@contextmanager
def console_logging(quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Show log lines inside the block, unless `quiet` or already shown; debug lines if `verbose`."""
    shown = any(isinstance(handler, ConsoleHandler) for handler in log.handlers)
    handlers = [] if quiet or shown else [ConsoleHandler(logging.DEBUG if verbose else logging.INFO)]
    level, propagate = log.level, log.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = False
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


@contextmanager
def muted() -> Iterator[None]:
    """Drop log lines inside the block, which only tries something."""
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def file_logging(path: Path) -> Iterator[None]:
    """Append log lines, debug lines included, to a file, each with its time."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


# --- Progress
# --------------------------------------------------------------------------------------------------------


@contextmanager
def progress(
    total: int, description: str, unit: str = "images", done: int = 0, quiet: bool = False, after: float = 0.0
) -> Iterator[Advance]:
    """Show the progress of a phase: a bar on a terminal, otherwise lines at most 30 seconds apart.

    Args:
        total: how much there is to do.
        description: name of the phase, such as "Reading images" or "epoch 3/50".
        unit: what is counted, also in the speed ("images/s"); "" shows a percentage only.
        done: how much was done before.
        quiet: show nothing.
        after: seconds that further phases will take, included in the time left.

    Yields:
        `advance(n, description=None, remaining=None, total=None)`: see `Advance`.
    """
    meter = Meter(total, description, unit, done, after)
    if quiet:
        yield meter.advance
        return
    with _bar(meter) if console().is_terminal else _report_lines(f"{description} ...", meter.line):
        yield meter.advance


_bars: list[Meter] = []
"""Meters of the bars on the screen."""


@contextmanager
def _bar(meter: Meter) -> Iterator[None]:
    from rich.live import Live

    with Live(
        get_renderable=lambda: _bar_row(meter), console=console(), transient=True, refresh_per_second=4
    ):
        _bars.append(meter)
        try:
            yield
        finally:
            _bars.remove(meter)


def _bar_row(meter: Meter) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Column, Table

    texts = [Column(no_wrap=True) for _ in range(4)]
    row = Table.grid(texts[0], Column(ratio=1), *texts[1:], padding=(0, 1), expand=True)
    bar = ProgressBar(total=max(meter.total, 1), completed=meter.done)
    width = max(console().width - FIGURES_WIDTH, 12)
    name = meter.description if len(meter.description) <= width else f"{meter.description[: width - 1]}…"
    row.add_row(name, bar, meter.count_text(), meter.speed_text(), meter.time_text())
    return row


@contextmanager
def _report_lines(first: str, line: Callable[[], str]) -> Iterator[None]:
    """Print `first`, then, from a thread of its own, `line()` at growing intervals of up to 30 seconds."""
    ended = threading.Event()

    def report() -> None:
        interval = FIRST_LINE_SECONDS
        while not ended.wait(interval):
            _print(line())
            interval = min(2 * interval, LINE_SECONDS)

    _print(first)
    thread = threading.Thread(target=report, name="vaekit progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def status(text: str, quiet: bool = False) -> Iterator[None]:
    """Show a phase of unknown length at once, on a terminal by a line that vanishes at its end.

    Args:
        text: what is being done, such as "Checking speed".
        quiet: show nothing.
    """
    if quiet:
        yield
    elif _bars:
        meter = _bars[-1]
        description, meter.description = meter.description, text
        try:
            yield
        finally:
            meter.description = description
    elif console().is_terminal:
        with console().status(f"{text} ...", spinner="line"):
            yield
    else:
        begun = time.monotonic()
        with _report_lines(f"{text} ...", lambda: f"{text}: {time.monotonic() - begun:.0f} s so far"):
            yield
