"""Interleaved measurement: everything compared runs in turn in one process; medians are reported."""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vaekit.data.decoding.pool import cores
from vaekit.errors import UserError
from vaekit.utils.device import best_device
from vaekit.utils.logging import progress
from vaekit.version import VERSION

RunOnce = Callable[[], int]
"""Does the work once and returns the number of images processed."""


@dataclass(frozen=True)
class BenchResult:
    """Images per second of everything that was compared in one workload."""

    about: str
    limit: str
    """The entry of `rounds` that the others are compared with."""
    rounds: dict[str, list[float]]
    """Images per second in every round."""

    def speed(self, name: str) -> float:
        """Images per second, the median of the rounds."""
        return statistics.median(self.rounds[name])

    def ratios(self, name: str, other: str) -> list[float]:
        """How many times as fast `name` is as `other`, round by round: noise of the machine hits both."""
        return [a / b for a, b in zip(self.rounds[name], self.rounds[other], strict=True)]

    def ratio(self, name: str, other: str) -> float:
        """The median of `ratios`."""
        return statistics.median(self.ratios(name, other))

    def fastest(self, prefix: str) -> str:
        """The fastest entry whose name begins with `prefix`."""
        return max((name for name in self.rounds if name.startswith(prefix)), key=self.speed)

    def lines(self, title: str) -> list[str]:
        """A table of the result, for the screen."""
        width = max(map(len, self.rounds))
        table = [f"{title}: {self.about}", f"  {'':<{width}}  images/s  relative to {self.limit}"]
        for name in self.rounds:
            speed, ratio = format_speed(self.speed(name)), self.ratio(name, self.limit)
            table.append(f"  {name:<{width}}  {speed:>8}  {ratio:.2f}")
        return table


Workload = Callable[[int, torch.device], BenchResult]
"""A number of rounds and a device -> the images per second of everything compared."""


def format_speed(speed: float) -> str:
    """Images per second, with one decimal below 100."""
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.1f}"


def run_interleaved(runs_once: Mapping[str, RunOnce], rounds: int) -> dict[str, list[float]]:
    """Run everything in turn: once to warm up, then in `rounds` rounds, each beginning with another one.

    Returns:
        Images per second by name and round.
    """
    for run_once in runs_once.values():
        run_once()
    speeds: dict[str, list[float]] = {name: [] for name in runs_once}
    for number in range(rounds):
        names = list(runs_once)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            images = runs_once[name]()
            speeds[name].append(images / (time.perf_counter() - start))
    return speeds


def bench(names: Sequence[str], rounds: int, workloads: Mapping[str, Workload]) -> dict[str, Any]:
    """Measure workloads on this machine, and print the results.

    Args:
        names: which workloads; empty for all.
        rounds: interleaved measurement rounds, of which the median is reported.
        workloads: the workloads that there are.

    Returns:
        Machine, device and results, ready for JSON.

    Raises:
        UserError: a workload does not exist, or `rounds` is below 1.
    """
    if unknown := [name for name in names if name not in workloads]:
        raise UserError(f"Unknown workload {unknown[0]!r}.", f"Available: {', '.join(workloads)}.")
    if rounds < 1:
        raise UserError(f"must be at least 1 (got {rounds}).", option="rounds")
    device = best_device()
    results: dict[str, Any] = {}
    with _temporary_cache():
        for name in names or workloads:
            with progress(None, f"Measuring {name}"):
                result = workloads[name](rounds, device)
            results[name] = asdict(result)
            print("\n".join([*result.lines(name), ""]))
    return {"format": 1, "machine": machine(), "device": str(device), "workloads": results}


@contextmanager
def _temporary_cache() -> Iterator[None]:
    """An empty image cache for the duration of the block."""
    before = os.environ.copy()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            os.environ.update(before)


def machine() -> dict[str, Any]:
    """The machine and versions that were measured."""
    return {
        "processor": _processor_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vaekit": VERSION,
    }


def _processor_name() -> str:
    """Name and bfloat16 instructions; in a virtual machine the name alone says little."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    capabilities = torch.cpu.get_capabilities()
    return ", ".join([name, *(kind for kind in ("avx512_bf16", "amx_bf16") if capabilities.get(kind))])
