"""Decoding in parallel processes, which run `worker.py` as a command and are fed over pipes.

So a user's script needs no guard `if __name__ == "__main__"`, processes inherit neither threads nor memory,
and an image that crashes its decoder costs that image only.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple

from vaekit.data.decoding.resize import DecodeSpec
from vaekit.data.decoding.worker import Answer

IMAGES_PER_MESSAGE = 8
"""Images per message to a worker: few enough to balance the load, enough to keep the overhead low."""
Process = subprocess.Popen[str]


class Job(NamedTuple):
    """What the workers do with each image."""

    root: str
    """The folder, or the archive, that holds the files."""
    task: str = "decode"
    """"decode", or one of the tasks of the survey: "probe", "inspect", "visible"."""
    out: str = os.devnull
    """The file that decoded images are written into."""
    target: DecodeSpec | None = None
    channels: int = 0
    bands: tuple[int, ...] = ()


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_workers(job: Job, images: Sequence[tuple[str, int]]) -> Iterator[tuple[int, Answer]]:
    """Process images, each a path relative to the job's root and a page, in parallel worker processes.

    Yields (index, answer) as files complete; a text is the reason why one is unusable.
    """
    tasks = [(row, path, page) for row, (path, page) in enumerate(images)]
    size = IMAGES_PER_MESSAGE
    chunks = deque(tasks[at : at + size] for at in range(0, len(tasks), size))
    answers: list[tuple[int, Answer]] = []
    processes: list[Process] = []
    idle: list[Process | None] = [None] * min(cores(), len(chunks))  # None is started when it is needed
    with tempfile.TemporaryFile() as errors, selectors.DefaultSelector() as busy:
        try:
            while chunks or busy.get_map():
                while chunks and idle:
                    if (process := idle.pop()) is None:
                        process = _start(job, errors)
                        processes.append(process)
                    chunk = chunks.popleft()
                    _send(process, chunk)
                    assert process.stdout is not None
                    busy.register(process.stdout, selectors.EVENT_READ, (process, chunk))
                yield from answers  # while the processes work
                answers = []
                for key, _ in busy.select():
                    process, chunk = key.data
                    busy.unregister(key.fileobj)
                    line = process.stdout.readline()
                    if line.endswith("\n"):
                        idle.append(process)
                        answers += zip((index for index, *_ in chunk), json.loads(line), strict=True)
                        continue
                    if _wait(process) >= 0:  # it raised; a crash is a signal
                        raise OSError(f"decoding failed: {_last_line(errors)}")
                    idle.append(None)
                    if len(chunk) > 1:
                        chunks.extendleft([task] for task in chunk)  # singly, to find the one that crashes
                    else:
                        answers.append((chunk[0][0], "crashed the decoder"))
            yield from answers
        finally:
            for process in processes:
                process.kill()
                _wait(process)


def _start(job: Job, errors: IO[bytes]) -> Process:
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
    _send(process, job._asdict())
    return process


def _send(process: Process, message: Any) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # a dead process is detected by its missing answer
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()


def _wait(process: Process) -> int:
    """Wait for a process to end; returns its exit status, negative for a signal."""
    with suppress(BrokenPipeError):
        process.communicate()
    return process.wait()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "a decoding process ended without an error message"
