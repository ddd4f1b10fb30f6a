"""Work in the background whose progress the page shows."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("vaekit.explorer")


@dataclass(eq=False)
class Job:
    """A piece of work on a thread, which shares the model with requests.

    `compute` is held while it computes, and passed on whenever it reports progress, so that a request waits
    for no more than one batch.
    """

    text: str
    """What it does, such as "Encoding images"."""
    compute: threading.Lock
    done: int = 0
    total: int = 0
    state: str = "waiting"
    """Or "running", "done", "failed"."""
    error: str = ""

    def start(self, work: Callable[[Callable[..., None]], Any]) -> "Job":
        """Call `work` with `advance` on a thread, once."""
        self.state = "running"
        threading.Thread(target=self._run, args=(work,), name=f"vaekit: {self.text}", daemon=True).start()
        return self

    @property
    def status(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "done": self.done,
            "total": self.total,
            "state": self.state,
            "error": self.error,
        }

    def advance(self, n: int, total: int | None = None) -> None:
        """Count `n` more, of `total` if that is given, and let requests compute."""
        if total is not None:
            self.total, self.done = total, 0
        self.done += n
        self.compute.release()
        time.sleep(0.001)  # otherwise this thread would mostly get the lock itself
        self.compute.acquire()

    def _run(self, work: Callable[[Callable[..., None]], Any]) -> None:
        with self.compute:
            try:
                work(self.advance)
                self.state = "done"
            except Exception as error:  # shown on the page, whatever it is
                self.state, self.error = "failed", str(error) or type(error).__name__
                log.debug("%s failed", self.text, exc_info=True)
