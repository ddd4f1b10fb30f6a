"""What a person sees while vaekit works: lines, and a progress bar where there is a terminal."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


log = logging.getLogger("vaekit")
"""Every line goes through this logger; a run adds a handler that writes its log.txt."""


@cache
def console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, soft_wrap=True)


class ConsoleHandler(logging.Handler):
    """Prints log lines above a progress bar that may be showing.

    Where nobody reads any more (`vaekit train | head`) it falls silent: a lost screen is no reason to lose a run.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, UnicodeError, SystemExit):  # rich leaves the process where a pipe is broken
            console().print(self.format(record))


@contextmanager
def console_logging(quiet: bool = False) -> Iterator[None]:
    """Show log lines on the screen inside the block, unless `quiet` or already shown."""
    handlers = [] if quiet or any(isinstance(h, ConsoleHandler) for h in log.handlers) else [ConsoleHandler()]
    level, propagate = log.level, log.propagate
    log.setLevel(logging.INFO)
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
    """Nothing is said inside the block, which only tries something."""
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def progress(
    total: int, description: str, unit: str = "images", done: int = 0, quiet: bool = False
) -> Iterator[Callable[..., None]]:
    """A bar with speed and time left; yields `advance(n, description=None)`. Nothing without a terminal."""
    if quiet or not console().is_terminal:
        yield lambda n, description=None, remaining=None: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[speed]}} {unit}/s"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console(), transient=True, refresh_per_second=4) as bars:
        task = bars.add_task(description, total=total, completed=done, speed="-")

        def advance(n: int, description: str | None = None, remaining: float | None = None) -> None:
            bars.update(task, advance=n, description=description)
            speed = bars.tasks[0].speed
            bars.update(task, speed=f"{speed:,.0f}" if speed else "-")

        yield advance


@contextmanager
def file_logging(path: Path) -> Iterator[None]:
    """Append log lines to a file, with the time of each."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
