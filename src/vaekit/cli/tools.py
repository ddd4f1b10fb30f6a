"""`bench`, `presets`, `doctor`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vaekit.config.presets import PRESETS


def bench(
    *workloads: Annotated[
        str,
        Parameter(
            help="What to measure: mlp, conv, resnet, folder-first, folder-later, generation, evaluation, scaling; "
            "default: all, half an hour."
        ),
    ],
    rounds: Annotated[int, Parameter(help="Turns that everything takes; medians count.")] = 9,
    out: Annotated[
        Path | None, Parameter(help="JSON file to write; default: bench-1.json here, or the next number.")
    ] = None,
) -> None:
    """Measure how fast vaekit trains and runs here, beside a bare loop, a DataLoader script and Pythae."""
    from vaekit.bench.runner import bench as run_bench
    from vaekit.runs.metadata import write_json
    from vaekit.runs.outputs import first_free, new_file

    file = new_file(None, out or first_free(Path(), "bench", ".json"), (".json",))
    write_json(file, run_bench(workloads, rounds))
    print(f"Wrote {file}")


def presets() -> None:
    """List the named models: parts (encoder, posterior, prior, likelihood, objective), paper, and what was checked."""
    from vaekit.config.overrides import describe_components, resolve

    width = max(map(len, PRESETS))
    for name, preset in PRESETS.items():
        print(f"{name:<{width}}  {preset.about}")
        print(f"{'':<{width}}    parts: {describe_components(resolve(preset=name))}")
        print(f"{'':<{width}}    paper: {preset.paper}")
        for checked in preset.checked:
            print(f"{'':<{width}}    checked: {checked}")


def doctor(
    *, clear_cache: Annotated[bool, Parameter(negative=(), help="Delete the packs of images read before.")] = False
) -> None:
    """Show versions, device, threads, free disk and cache."""
    from vaekit.cli.doctor import clear, report

    print(clear() if clear_cache else report())
