"""Taking turns: what is compared runs interleaved in one process, and counts by the median of its rounds."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vaekit.version import VERSION

RunOnce = Callable[[], int]
"""Does its work once and returns how many images that were."""


@dataclass(frozen=True)
class BenchResult:
    """Images per second of everything that took turns, a number a round, and what they are compared with."""

    about: str
    limit: str
    """The contestant whose speed is the most that can be expected."""
    rounds: dict[str, list[float]]
    missing: dict[str, str] = field(default_factory=dict)
    """Contestants that are not installed, and what would bring them."""
    shares: dict[str, float] = field(default_factory=dict)
    """Shares of the time of a whole training, by what it went into."""

    def speed(self, name: str) -> float:
        """Images per second, the median of the rounds."""
        return statistics.median(self.rounds[name])

    def ratios(self, name: str, other: str) -> list[float]:
        """How many times as fast `name` is as `other`, by rounds, whose noise hits both."""
        return [a / b for a, b in zip(self.rounds[name], self.rounds[other], strict=True)]

    def ratio(self, name: str, other: str) -> float:
        """The median of `ratios`."""
        return statistics.median(self.ratios(name, other))

    def best(self, prefix: str) -> str:
        """The quickest of the contestants whose names begin so."""
        return max((name for name in self.rounds if name.startswith(prefix)), key=self.speed)


def shown(speed: float) -> str:
    """Images per second, with a digit behind the point where they are few."""
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.1f}"


def run_interleaved(runs_once: Mapping[str, RunOnce], rounds: int) -> dict[str, list[float]]:
    """A first turn each that does not count, then `rounds` rounds in changing order."""
    for run_once in runs_once.values():
        run_once()
    speeds: dict[str, list[float]] = {name: [] for name in runs_once}
    for number in range(rounds):
        names = list(runs_once)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begun = time.perf_counter()
            images = runs_once[name]()
            speeds[name].append(images / (time.perf_counter() - begun))
    return speeds


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vaekit": VERSION,
    }


def _processor() -> str:
    """Its name and what it has of bfloat16; in virtual machines the name says little."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    able = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
    return ", ".join([names[0] if names else platform.processor() or platform.machine(), *able])


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
