"""Signals that ask training to stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vaekit.utils.logging import log


@contextmanager
def stop_on_signals(request_stop: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first SIGINT or SIGTERM calls `request_stop`; a second one ends the process.

    Signals reach the main thread only: in another one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = False

    def handle(number: int, _: object) -> None:
        nonlocal received
        if received:
            os._exit(128 + number)
        received = True
        request_stop()
        log.info("Saving and stopping ... Press Ctrl-C again to quit immediately.")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
