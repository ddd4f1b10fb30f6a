"""`bench`, `presets`, `doctor`."""

from pathlib import Path
from textwrap import fill
from typing import Annotated

from cyclopts import Parameter

from vaekit.cli.common import say
from vaekit.config.presets import PRESETS, to_toml


def bench(
    *workloads: Annotated[
        str,
        Parameter(
            help="Workloads to run: mlp, conv, resnet, folder-first, folder-later, generation, evaluation, "
            "scaling (default: all, about 30 minutes)."
        ),
    ],
    rounds: Annotated[int, Parameter(help="Measurement rounds; the median is reported.")] = 9,
    out: Annotated[
        Path | None, Parameter(help="JSON file to write (default: bench-1.json here, or the next number).")
    ] = None,
) -> None:
    """Benchmark vaekit on this machine against a plain PyTorch loop of the same network."""
    from vaekit.bench.measure import bench as run_bench
    from vaekit.bench.workloads import WORKLOADS
    from vaekit.runs.metadata import write_json
    from vaekit.runs.outputs import first_free, new_file

    file = new_file(None, out or first_free(Path(), "bench", ".json"), (".json",))
    write_json(file, run_bench(workloads, rounds, WORKLOADS))
    say(f"Wrote {file}")


def presets(name: Annotated[str | None, Parameter(help="Preset to show in full.")] = None, /) -> None:
    """List the available presets, or show one in full."""
    from vaekit.config.overrides import describe_components, resolve

    if name is None:
        say(_list_presets())
        return
    config = resolve(preset=name)
    preset = PRESETS[name]
    comments = [
        f"{name}: {preset.about}",
        f"Purpose: {preset.purpose}",
        f"Components: {describe_components(config)}",
        f"Paper: {preset.paper}",
        *(f"Checked: {checked}" for checked in preset.checked),
    ]
    for comment in comments:
        print(fill(comment, 80, initial_indent="# ", subsequent_indent="#   "))
    print(to_toml(preset.settings) or "# Settings: the defaults")


def _list_presets() -> str:
    width = max(map(len, PRESETS))
    sections: dict[str, str] = {}
    for name, preset in PRESETS.items():
        sections.setdefault(preset.purpose, preset.purpose)
        sections[preset.purpose] += f"\n  {name:<{width}}  {preset.about}"
    end = "`vaekit presets NAME` shows one in full; `vaekit train --preset NAME` uses it.\n"
    end += "Components combine freely: `vaekit train --preset best --prior.kind vamp`."
    return "\n\n".join([*sections.values(), end])


def doctor(
    *, clear_cache: Annotated[bool, Parameter(negative=(), help="Delete cached image data.")] = False
) -> None:
    """Show versions, device, threads, free disk and cache."""
    from vaekit.cli.doctor import clear, report

    say(clear() if clear_cache else report())
