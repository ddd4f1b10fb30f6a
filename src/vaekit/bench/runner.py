"""Measures workloads and prints the results."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from vaekit.bench.measure import machine
from vaekit.bench.workloads import WORKLOADS, Workload
from vaekit.errors import UserError
from vaekit.utils.device import best_device

FORMAT = 1


def bench(
    names: Sequence[str] = (),
    rounds: int = 9,
    workloads: Mapping[str, Workload] = WORKLOADS,
    write: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure workloads on this machine.

    Args:
        names: which workloads; empty for all.
        rounds: interleaved measurement rounds, of which the median is reported.
        workloads: the workloads that there are.
        write: prints the text of a result.

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
    with temporary_cache():
        for name in names or workloads:
            result = workloads[name](rounds, device)
            results[name] = asdict(result)
            write("\n".join([*result.lines(name), ""]))
    return {"format": FORMAT, "machine": machine(), "device": str(device), "workloads": results}


@contextmanager
def temporary_cache() -> Iterator[None]:
    """An empty image cache for the duration of the block."""
    before = os.environ.copy()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            os.environ.update(before)
