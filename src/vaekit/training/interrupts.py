"""Signals that ask training to stop."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vaekit.training.callbacks import TrainingState
from vaekit.utils.logging import log


@contextmanager
def stop_on_signals(state: TrainingState) -> Iterator[None]:
    """Inside the block SIGINT or SIGTERM request a stop; another one ends the process.

    The first SIGINT, which is Ctrl-C, asks to finish up as well, and the second takes that back. Signals
    reach the main thread only: in another one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: object) -> None:
        if state.stop_requested and not state.finish_up:
            os._exit(128 + number)
        state.finish_up = number == signal.SIGINT and not state.stop_requested
        state.stop_requested = True
        message = "Saving and stopping ... Press Ctrl-C again to quit immediately."
        if state.finish_up:
            message = "Stopping, then fitting the prior and writing the report. "
            message += "Press Ctrl-C again to save and quit."
        # By a thread, since the main thread may be in the middle of a write, which cannot be nested
        threading.Thread(target=log.info, args=(message,)).start()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
