"""How far a phase is: what is done, its speed and the time left."""

import math
import time
from collections import deque

SPEED_SECONDS = 30.0
"""Speed is measured over this many seconds."""
SAMPLE_SECONDS = 0.25
"""Least time between two measurements of the speed."""


class Meter:
    """Counts what is done; estimates speed and time left, or shows the time taken if nothing is left."""

    def __init__(self, total: int | None, description: str, unit: str, done: int = 0) -> None:
        self.total, self.description, self.unit, self.done = total, description, unit, done
        self.begun = self.printed = time.monotonic()
        """When it began, and when a line was last printed."""
        self.silence = self.max_silence = 1.0
        """Seconds until the next line without a terminal, and their limit."""
        self.counted = 0
        self.samples = deque([(self.begun, 0)])
        self.end = math.nan
        self.estimated_by_caller = False

    def advance(
        self, n: int, description: str | None = None, remaining: float | None = None, total: int | None = None
    ) -> None:
        """Count `n` more.

        Args:
            n: how many more are done.
            description: name of the phase from now on.
            remaining: seconds left, nan if unknown; from then on the meter makes no estimate.
            total: start a new phase of this length, such as the next epoch; `n` of it are done.
        """
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
            self.end = now + max(0, (self.total or 0) - self.done) / speed

    def speed(self) -> float:
        """Units per second; 0 while unknown."""
        (began, first), (ended, last) = self.samples[0], self.samples[-1]
        return (last - first) / (ended - began) if ended > began else 0.0

    def count_text(self) -> str:
        return "" if self.total is None else f"{self.done:,} of {self.total:,} {self.unit}"

    def speed_text(self) -> str:
        speed = self.speed()
        return f"{speed:,.{0 if speed >= 10 else 1}f} {self.unit}/s" if speed else ""

    def time_text(self) -> str:
        if self.total is None or (self.done >= self.total and not self.estimated_by_caller):
            return f"{time.monotonic() - self.begun:.0f} s so far"
        return "" if math.isnan(self.end) else duration_left(self.end - time.monotonic())

    def line(self) -> str:
        texts = filter(None, (self.count_text(), self.speed_text(), self.time_text()))
        return f"{self.description}: {', '.join(texts)}"


def duration_left(seconds: float) -> str:
    """`about 40 s left`, `about 12 min left`, `about 3 h left`."""
    if seconds < 10:
        return "a few seconds left"
    for unit, length, step, limit in (("s", 1, 5, 90), ("min", 60, 1, 90), ("h", 3600, 1, 48)):
        if seconds < limit * length:
            return f"about {round(seconds / length / step) * step} {unit} left"
    return f"about {round(seconds / 86400)} days left"
