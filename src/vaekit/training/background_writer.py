"""Writing files while training continues: one thread, and one waiting job per slot."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

TIME_SHARE = 0.03
"""At most this share of the time goes into the jobs of a slot that asks whether it is `ready`."""


class BackgroundWriter:
    """Runs jobs in a thread, in the order in which their slots were first used.

    A job put into a slot replaces one that still waits there, so that training never waits for a slow disk
    and the newest state is what gets written. Leaving the block runs all jobs that wait. An error in a job is
    raised at the next `put` or at the end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "vaekit-writer")
        self._waiting: dict[str, Callable[[], None]] = {}
        self._futures: deque[Future[None]] = deque()
        self._ready_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self._raise_errors()

    def put(self, slot: str, job: Callable[[], None]) -> None:
        self._raise_errors()
        self._waiting[slot] = job
        self._futures.append(self._thread.submit(self._run, slot))

    def ready(self, slot: str) -> bool:
        """Whether no job waits in the slot, and enough time has passed since its last one."""
        return slot not in self._waiting and time.perf_counter() >= self._ready_at.get(slot, 0.0)

    def _run(self, slot: str) -> None:
        job = self._waiting.pop(slot, None)
        if job is None:  # replaced: its successor has run in its place
            return
        start = time.perf_counter()
        job()
        now = time.perf_counter()
        self._ready_at[slot] = now + (now - start) / TIME_SHARE

    def _raise_errors(self) -> None:
        while self._futures and self._futures[0].done():
            self._futures.popleft().result()
