"""The names that users rely on, pinned: commands, flags, Python names, run files and kinds of components.

A name may be added here; one that is removed or changed breaks somebody's script. `python
tests/test_public_names.py` rewrites the list.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import vaekit
from vaekit import TrainedModel
from vaekit.cli.main import app
from vaekit.config.config import Config, settings_classes
from vaekit.config.presets import PRESETS
from vaekit.runs.folder import Run
from vaekit.sklearn import VAETransformer

NAMES = Path(__file__).with_name("public_names.json")


def methods(cls: type) -> dict[str, list[str]]:
    """Public methods and properties, with the names of their parameters."""
    members = inspect.getmembers(cls, lambda member: not isinstance(member, type))
    public = {name: member for name, member in members if not name.startswith("_")}
    callables = {name: inspect.signature(member) for name, member in public.items() if callable(member)}
    return {name: list(callables[name].parameters)[1:] if name in callables else [] for name in public}


def flags(verb: str) -> list[str]:
    arguments = app[verb].assemble_argument_collection()
    return sorted({name for argument in arguments for name in argument.names if name != "*"})


def public_names() -> dict[str, Any]:
    verbs = [name for name in app if not name.startswith("-")]
    run = Run(Path("RUN"))
    paths = [path for path in vars(run).values() if path != run.folder]
    return {
        "vaekit": sorted(vaekit.__all__),
        "vaekit.train": list(inspect.signature(vaekit.train).parameters),
        "vaekit.load": list(inspect.signature(vaekit.load).parameters),
        "model": methods(TrainedModel),
        "VAETransformer": {**methods(VAETransformer), "": list(inspect.signature(VAETransformer).parameters)},
        "verbs": {verb: flags(verb) for verb in sorted(verbs)},
        "presets": sorted(PRESETS),
        "kinds": {
            part: sorted(settings_classes(part)) for part in Config.model_fields if settings_classes(part)
        },
        "run": sorted(path.name for path in [*paths, run.samples(1).parent, run.reconstructions(1).parent]),
    }


def test_no_public_name_is_lost() -> None:
    assert public_names() == json.loads(NAMES.read_text())


if __name__ == "__main__":
    NAMES.write_text(json.dumps(public_names(), indent=1) + "\n")
