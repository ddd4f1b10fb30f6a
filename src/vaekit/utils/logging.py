"""What the user sees while vaekit works: log lines, phases and progress, on a terminal and without one."""

import logging
import math
import re
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vaekit.errors import spelled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


SPEED_SECONDS = 30.0
"""Speed is measured over this many seconds."""


SAMPLE_SECONDS = 0.25
"""Least time between two measurements of the speed."""


FIRST_LINE_SECONDS = 4.0
"""Without a terminal, seconds until the first report of a phase; the interval doubles each time."""


LINE_SECONDS = 30.0
"""Without a terminal, the longest interval between two reports."""


FIGURES_WIDTH = 60
"""Columns of a bar's row that the count, the speed and the time left take."""


# --- Log lines -------------------------------------------------------------------------------------------------------


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


# --- Progress --------------------------------------------------------------------------------------------------------


class Advance(Protocol):
    """Reports progress to a bar."""

    def __call__(
        self, n: int, description: str | None = None, remaining: float | None = None, total: int | None = None
    ) -> None:
        """Count `n` more.

        Args:
            n: how many more are done.
            description: name of the phase from now on.
            remaining: seconds left, nan if unknown; from then on the bar makes no estimate of its own.
            total: start a new phase of this length, such as the next epoch; `n` of it are done.
        """


class _Meter:
    """Counts what is done, and estimates speed and time left."""

    def __init__(self, total: int, description: str, unit: str, done: int, after: float) -> None:
        self.total, self.description, self.unit, self.done, self.after = total, description, unit, done, after
        self.counted = 0
        self.samples = deque([(time.monotonic(), 0)])
        self.end = math.nan
        self.estimated_by_caller = False

    def advance(
        self, n: int, description: str | None = None, remaining: float | None = None, total: int | None = None
    ) -> None:
        self.description = description or self.description
        if total is not None:
            self.total, self.done = total, 0
        self.done += n
        self.counted += n
        now = time.monotonic()
        if now - self.samples[-1][0] >= SAMPLE_SECONDS and n:
            self.samples.append((now, self.counted))
            while len(self.samples) > 2 and now - self.samples[1][0] > SPEED_SECONDS:
                self.samples.popleft()
        if remaining is not None:
            self.estimated_by_caller, self.end = True, now + remaining
        elif not self.estimated_by_caller and (speed := self.speed()):
            self.end = now + max(0, self.total - self.done) / speed + self.after

    def speed(self) -> float:
        """Units per second; 0 while unknown."""
        (began, first), (ended, last) = self.samples[0], self.samples[-1]
        return (last - first) / (ended - began) if ended > began else 0.0

    def count_text(self) -> str:
        if self.unit:
            return f"{self.done:,} of {self.total:,} {self.unit}"
        return f"{self.done / max(self.total, 1):.0%}"

    def speed_text(self) -> str:
        speed = self.speed()
        return f"{speed:,.{0 if speed >= 10 else 1}f} {self.unit}/s" if speed and self.unit else ""

    def time_text(self) -> str:
        return "" if math.isnan(self.end) else duration_left(self.end - time.monotonic())

    def line(self) -> str:
        return (
            f"{self.description}: {', '.join(filter(None, (self.count_text(), self.speed_text(), self.time_text())))}"
        )


def duration_left(seconds: float) -> str:
    """`about 40 s left`, `about 12 min left`, `about 3 h left`."""
    if seconds < 10:
        return "a few seconds left"
    for unit, length, step, limit in (("s", 1, 5, 90), ("min", 60, 1, 90), ("h", 3600, 1, 48)):
        if seconds < limit * length:
            return f"about {round(seconds / length / step) * step} {unit} left"
    return f"about {round(seconds / 86400)} days left"


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
    meter = _Meter(total, description, unit, done, after)
    if quiet:
        yield meter.advance
        return
    with _bar(meter) if console().is_terminal else _report_lines(f"{description} ...", meter.line):
        yield meter.advance


_bars: list[_Meter] = []
"""Meters of the bars on the screen."""


@contextmanager
def _bar(meter: _Meter) -> Iterator[None]:
    from rich.live import Live

    with Live(get_renderable=lambda: _bar_row(meter), console=console(), transient=True, refresh_per_second=4):
        _bars.append(meter)
        try:
            yield
        finally:
            _bars.remove(meter)


def _bar_row(meter: _Meter) -> "Table":
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
