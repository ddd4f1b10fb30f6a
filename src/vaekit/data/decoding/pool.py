"""Decoding in parallel processes, which run `worker.py` as a command and are fed over pipes.

So a user's script needs no guard `if __name__ == "__main__"`, processes inherit neither threads nor memory,
and an image that crashes its decoder costs that image only.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any, NamedTuple

from vaekit.data.decoding.decode import ResizeSpec
from vaekit.data.decoding.worker import Answer

IMAGES_PER_MESSAGE = 8
"""Images per message to a worker: few enough to balance the load, enough to keep the overhead low."""
Chunk = list[tuple[int, str]]
"""The index and path of some files."""
Answers = SimpleQueue[tuple[int, Answer] | BaseException]


class Job(NamedTuple):
    """Decode files below `root` into the file `out` as `target`; without `target`, read their sizes."""

    root: str
    out: str = os.devnull
    target: ResizeSpec | None = None
    channels: int = 0


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_workers(job: Job, paths: Sequence[str]) -> Iterator[tuple[int, Answer]]:
    """Process the files `paths`, relative to the job's root, in parallel worker processes.

    Yields (index, answer) as files complete; a text is the reason why one is unusable.
    """
    tasks, size = list(enumerate(paths)), IMAGES_PER_MESSAGE
    chunks = deque(tasks[at : at + size] for at in range(0, len(tasks), size))
    answers: Answers = SimpleQueue()
    running: list[subprocess.Popen[str]] = []
    stopping = threading.Event()
    arguments = job, chunks, answers, running, stopping
    count = min(cores(), len(chunks))
    threads = [threading.Thread(target=_run_worker, args=arguments, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        for _ in paths:
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer
    finally:
        stopping.set()
        for process in running:
            process.kill()
        for thread in threads:
            thread.join()


def _run_worker(
    job: Job,
    chunks: deque[Chunk],
    answers: Answers,
    running: list[subprocess.Popen[str]],
    stopping: threading.Event,
) -> None:
    """Have one process work through `chunks`; restart it if an image crashes it."""
    process: subprocess.Popen[str] | None = None
    with tempfile.TemporaryFile() as errors:
        try:
            while not stopping.is_set():
                try:
                    chunk = chunks.popleft()
                except IndexError:
                    break
                if process is None:
                    process = _start(job, errors)
                    running.append(process)
                _send(process, chunk)
                line = process.stdout.readline() if process.stdout else ""
                if line.endswith("\n"):  # otherwise the process has died
                    for (index, _), answer in zip(chunk, json.loads(line), strict=True):
                        answers.put((index, answer))
                    continue
                if _wait(process) >= 0 and not stopping.is_set():  # it raised; a crash is a signal
                    raise OSError(f"decoding failed: {_last_line(errors)}")
                process = None
                if len(chunk) > 1:
                    chunks.extendleft([task] for task in chunk)  # singly, to find the one that crashes
                else:
                    answers.put((chunk[0][0], "crashed the decoder"))
        except BaseException as error:  # raised by the thread that waits for answers
            answers.put(error)
        finally:
            if process is not None:
                process.kill()
                _wait(process)


def _start(job: Job, errors: IO[bytes]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "vaekit.data.decoding.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        encoding="ascii",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C reaches only this process, which then ends the workers
    )
    _send(process, job)
    return process


def _send(process: subprocess.Popen[str], message: Any) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # a dead process is detected by its missing answer
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()


def _wait(process: subprocess.Popen[str]) -> int:
    """Wait for a process to end; returns its exit status, negative for a signal."""
    with suppress(BrokenPipeError):
        process.communicate()
    return process.wait()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "a decoding process ended without an error message"
