"""How fast this machine trains and uses models with vaekit, beside what others do with the same network and images."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from vaekit.bench.measure import BenchResult, machine, shown
from vaekit.bench.workloads import WORKLOADS, scratch_cache
from vaekit.errors import UserError
from vaekit.utils.device import best_device

FORMAT = 1


def bench(names: Sequence[str] = (), rounds: int = 9, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure workloads, all of them where none is named, and say what was found; returns it all, ready for JSON.

    Raises:
        UserError: there is no such workload.
    """
    for name in names:
        if name not in WORKLOADS:
            raise UserError(f"There is no workload {name!r}: name some of {', '.join(WORKLOADS)}, or none for all.")
    if rounds < 1:
        raise UserError(f"--rounds {rounds} is not possible: it should be 1 or more.")
    device = best_device()
    found: dict[str, Any] = {}
    with scratch_cache():
        for name in names or WORKLOADS:
            one = WORKLOADS[name](rounds, device)
            found[name] = asdict(one)
            for line in lines(name, one):
                say(line)
    return {"format": FORMAT, "machine": machine(), "device": str(device), "workloads": found}


def lines(name: str, found: BenchResult) -> list[str]:
    """A workload's figures for the screen."""
    width = max(map(len, found.rounds))
    lines = [f"{name}: {found.about}", f"  {'':<{width}}  images/s  times {found.limit}"]
    lines += [
        f"  {one:<{width}}  {shown(found.speed(one)):>8}  {found.ratio(one, found.limit):.2f}" for one in found.rounds
    ]
    lines += [f"  {one:<{width}}  not installed: {how}" for one, how in found.missing.items()]
    if found.shares:
        shares = ", ".join(f"{part} {share:.1%}" for part, share in found.shares.items() if share >= 0.0005)
        lines.append(f"  of a training's time: {shares}")
    return [*lines, ""]
