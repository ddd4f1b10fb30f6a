"""Log lines, phases and progress, on a terminal of 80 columns and without one."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from pathlib import Path

import pytest
from pytest import CaptureFixture, MonkeyPatch

from vaekit.errors import setting
from vaekit.utils import logging, meter
from vaekit.utils.logging import console_logging, file_logging, log, progress, status, wrapped
from vaekit.utils.meter import Meter, duration_left

LOSSES = "train 70843.05 = 70618.54 + KL 224.50  validation 61343.22 = 61118.72 + KL 224.50"
LINE = f"epoch 3/50  {LOSSES}  92 images/s"
ON_A_TERMINAL = f"""
from time import sleep
from vaekit.utils.logging import console_logging, log, progress, status
with console_logging():
    with status("Checking speed"):
        sleep(0.6)
    with progress(3400, "epoch 3/50", done=1000) as advance:
        for _ in range(6):
            sleep(0.1)
            advance(100, remaining=720)
        log.info({LINE!r})
"""


def on_a_terminal(script: str, columns: int = 80) -> str:
    """What a script shows on a terminal of so many columns."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm"
        os.environ.pop("COLUMNS", None)
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execv(sys.executable, [sys.executable, "-c", script])
    output = b""
    try:
        while part := os.read(terminal, 65536):
            output += part
    except OSError:  # how Linux reports that the other end is closed
        pass
    os.waitpid(child, 0)
    return re.sub(r"\x1b\[[0-9;]*m", "", output.decode())


def test_wrapped_breaks_between_words_and_keeps_commands() -> None:
    lines = wrapped(f"  {LINE}", 50).splitlines()
    assert " ".join(line.strip() for line in lines).split() == LINE.split()
    assert all(len(line) <= 50 for line in lines)
    assert [len(line) - len(line.lstrip()) for line in lines] == [2, 4, 4]
    assert wrapped("a\n\n  b", 80) == "a\n\n  b"
    for text in ("Continue: vaekit train --resume --out runs/x", "Use `vaekit evaluate runs/x` now"):
        command = re.search(r"vaekit [^`]*", text)
        assert command and any(command[0] in line for line in wrapped(text, 40).splitlines())


def test_terminal_shows_phase_speed_and_time_left() -> None:
    output = on_a_terminal(ON_A_TERMINAL)
    assert output.count("Checking speed ━") >= 2  # it is drawn more than once
    assert re.search(r"epoch 3/50 .* 1,[3-6]00 of 3,400 images [0-9,]+ images/s about 12 min left", output)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert all(len(row) <= 80 for row in re.split(r"[\r\n]+", text))
    assert f"{wrapped(LINE, 80)}\n" in text.replace("\r\n", "\n")


@pytest.fixture
def hasty(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(logging, "ANNOUNCE_SECONDS", 0.1)
    monkeypatch.setattr(logging, "LINE_SECONDS", 0.2)
    monkeypatch.setattr(meter, "SAMPLE_SECONDS", 0.0)


def test_plain_lines_without_a_terminal(hasty: None, capsys: CaptureFixture[str]) -> None:
    with console_logging(), status("Checking speed"):
        time.sleep(0.8)
    ticks = capsys.readouterr().out.splitlines()
    assert len(ticks) >= 3 and all(re.fullmatch(r"Checking speed: [0-9]+ s so far", tick) for tick in ticks)
    with progress(3400, "epoch 1/2", max_silence=60) as advance:
        advance(3400)
        advance(1200, "epoch 2/2", remaining=600, total=3400)
        time.sleep(1.4)
    line, _, _, _, *_ = capsys.readouterr().out.splitlines()  # as often at first as in a short phase
    assert re.fullmatch(r"epoch 2/2: 1,200 of 3,400 images, [0-9,]+ images/s, about 10 min left", line)


def test_a_phase_within_another_takes_its_place(hasty: None, capsys: CaptureFixture[str]) -> None:
    with console_logging(), progress(10, "epoch 1/2"):
        with status("Compiling"):
            time.sleep(0.5)
        time.sleep(0.5)
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert list(dict.fromkeys(names)) == ["Compiling", "epoch 1/2"] and names == sorted(names)


def test_quiet_progress_prints_nothing(hasty: None, capsys: CaptureFixture[str]) -> None:
    with (
        console_logging(quiet=True),
        status("Checking speed"),
        progress(10, "Reading images", quiet=True) as advance,
    ):
        advance(10)
        time.sleep(0.2)
    assert capsys.readouterr().out == ""


def test_time_left_counts_down_between_reports(monkeypatch: MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(meter.time, "monotonic", lambda: now)
    phase = Meter(1000, "Reading images", "images")
    for _ in range(10):
        now += 1.0
        phase.advance(50)
    assert phase.line() == "Reading images: 500 of 1,000 images, 50 images/s, about 10 s left"
    phase.advance(500)
    assert phase.line() == "Reading images: 1,000 of 1,000 images, 50 images/s, 10 s so far"
    phase.advance(0, remaining=300)
    assert phase.time_text() == "about 5 min left"
    now += 100
    assert phase.time_text() == "about 3 min left"
    phase.advance(0, remaining=7)
    assert phase.time_text() == "a few seconds left"


TEXTS = {3: "a few seconds", 42: "about 40 s", 700: "about 12 min", 9e3: "about 2 h", 4e5: "about 5 days"}


@pytest.mark.parametrize(("seconds", "text"), TEXTS.items())
def test_time_left_is_labelled(seconds: float, text: str) -> None:
    assert duration_left(seconds) == f"{text} left"


def test_settings_are_spelled_on_screen_and_in_the_file(tmp_path: Path, capsys: CaptureFixture[str]) -> None:
    with console_logging(), file_logging(tmp_path / "log.txt"):
        log.info(f"Try {setting('batch_size', 64)}.")
        log.debug("Layers")
    assert capsys.readouterr().out == "Try batch_size=64.\n"
    first, second = (tmp_path / "log.txt").read_text().splitlines()
    assert first.endswith("  Try batch_size=64.") and second.endswith("  Layers")
