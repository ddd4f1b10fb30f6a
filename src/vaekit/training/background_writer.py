"""Writing files while training continues: one thread, and one waiting job per slot."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class BackgroundWriter:
    """Runs jobs in a thread, in the order in which their slots were first used.

    A job put into a slot replaces one that still waits there, so that training never waits for a slow disk
    and the newest state is what gets written. Leaving the block runs all jobs that wait. An error in a job is
    raised at the next `put` or at the end.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="vaekit-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if error is None:
            self._surface()

    def put(self, slot: str, job: Callable[[], None]) -> None:
        self._surface()
        with self._changed:
            self._jobs[slot] = job
            self._changed.notify()

    def waiting(self, slot: str) -> bool:
        return slot in self._jobs

    def _surface(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                job = self._jobs.pop(next(iter(self._jobs)))
            try:
                job()
            except BaseException as error:  # handed to the training thread, which raises it
                self._error = error
