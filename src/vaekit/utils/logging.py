"""What the user sees while vaekit works: log lines, phases and progress, on a terminal and without one."""

import logging
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vaekit.errors import spelled
from vaekit.utils.meter import Meter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

POLL_SECONDS = 0.25
ANNOUNCE_SECONDS = 1.0
"""Without a terminal, a phase that takes longer is announced by a line."""
LINE_SECONDS = 4.0
"""Without a terminal, the longest silence in a phase."""
LONG_PHASE_SECONDS = 29.0
"""The same for phases that may take hours."""
SILENT_SHARE = 1 / 30
"""In these, the silence between two lines as a share of the time taken so far: 4 s during two minutes."""
MIN_BAR_WIDTH = 4
"""Columns of a bar, at least."""


# --- Log lines ----------------------------------------------------------------------------------------------


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
        unbroken = re.sub(r"`[^`]*`|(?<=: )vaekit .*", lambda match: match[0].replace(" ", "\xa0"), line)
        pieces = textwrap.wrap(
            unbroken,
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


_level = threading.Lock()
_before: list[tuple[int, bool]] = []
"""Level and propagation of the logger before the first of the open blocks of `console_logging`."""
_phases: list[Meter] = []
"""The phases on the screen; the innermost, which is last, is shown."""


def _print(text: str) -> None:
    """Print above a progress bar. Training continues silently once the reader is gone (`... | head`)."""
    for phase in _phases:
        phase.printed = time.monotonic()
    with suppress(OSError, UnicodeError, SystemExit):  # rich raises SystemExit on a broken pipe
        console().print(fit_terminal(text))


class ConsoleHandler(logging.Handler):
    """Prints log lines on the screen."""

    def emit(self, record: logging.LogRecord) -> None:
        _print(self.format(record))


def _is_shown() -> bool:
    return any(isinstance(handler, ConsoleHandler) for handler in log.handlers) and not log.disabled


@contextmanager
def console_logging(quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Show log lines inside the block, unless `quiet` or already shown; debug lines if `verbose`."""
    handler = ConsoleHandler(logging.DEBUG if verbose else logging.INFO)
    with _all_lines(), nullcontext() if quiet or _is_shown() else _added(handler):
        yield


@contextmanager
def _all_lines() -> Iterator[None]:
    """Pass all lines to the handlers of the package alone, until the last such block of all threads ends."""
    with _level:
        if not _before:
            _before.append((log.level, log.propagate))
            log.setLevel(logging.DEBUG)
            log.propagate = False
        else:
            _before.append(_before[0])
    try:
        yield
    finally:
        with _level:
            level, propagate = _before.pop()
            if not _before:
                log.setLevel(level)
                log.propagate = propagate


@contextmanager
def _added(handler: logging.Handler) -> Iterator[None]:
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


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
    with _added(handler):
        yield


# --- Progress -----------------------------------------------------------------------------------------------


@contextmanager
def progress(
    total: int | None,
    description: str,
    unit: str = "images",
    done: int = 0,
    quiet: bool = False,
    max_silence: float = LINE_SECONDS,
) -> Iterator[Callable[..., None]]:
    """Show the progress of a phase: a bar on a terminal, lines elsewhere.

    Args:
        total: how much there is to do; None if that is unknown.
        description: name of the phase, such as "Reading images" or "epoch 3/50".
        unit: what is counted, also in the speed ("images/s").
        done: how much was done before.
        quiet: show nothing.
        max_silence: seconds between two lines, at most.

    Yields:
        `Meter.advance`.
    """
    meter = Meter(total, description, unit, done)
    with nullcontext() if quiet else _shown(meter, max_silence):
        yield meter.advance


def status(text: str) -> AbstractContextManager[object]:
    """Show a phase of unknown length, such as "Checking speed", and its time, where log lines are shown."""
    return progress(None, text, quiet=not _is_shown(), max_silence=LINE_SECONDS)


@contextmanager
def _shown(meter: Meter, max_silence: float) -> Iterator[None]:
    """Show a phase inside the block, in place of the phase around it."""
    meter.silence, meter.max_silence = ANNOUNCE_SECONDS, max_silence
    _phases.append(meter)
    try:
        with nullcontext() if len(_phases) > 1 else _bar() if console().is_terminal else _lines():
            yield
    finally:
        _phases.remove(meter)


def _bar() -> "Live":
    from rich.live import Live

    return Live(get_renderable=_bar_row, console=console(), transient=True, refresh_per_second=4)


def _bar_row() -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Column, Table

    meter = _phases[-1]
    figures = [meter.count_text(), meter.speed_text(), meter.time_text()]
    width = console().width - sum(len(text) + 1 for text in figures) - MIN_BAR_WIDTH - 1
    name = meter.description if len(meter.description) <= width else f"{meter.description[: width - 1]}…"
    label, *others = [Column(no_wrap=True, min_width=len(text)) for text in (name, *figures)]
    row = Table.grid(label, Column(ratio=1), *others, padding=(0, 1), expand=True)
    bar = ProgressBar(max(meter.total or 0, 1), meter.done, pulse=not meter.done)
    row.add_row(name, bar, *figures)
    return row


@contextmanager
def _lines() -> Iterator[None]:
    """Print a line about the innermost phase, from a thread, whenever the screen was silent for too long."""
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(POLL_SECONDS):
            meter = _phases[-1]
            if time.monotonic() - meter.printed >= meter.silence:
                _print(meter.line())
                share = (time.monotonic() - meter.begun) * SILENT_SHARE
                meter.silence = min(max(LINE_SECONDS, share), meter.max_silence)

    thread = threading.Thread(target=report, name="vaekit progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
