"""Write docs/parts.md from the settings, the registry and the presets; with --check only say whether it is up to date.

python tools/docs/parts.py
"""

import sys
from pathlib import Path

import vaekit.models.builder  # noqa: F401  registers the parts
from vaekit.config.config import ROOMS, parts_of
from vaekit.config.overrides import parts, resolve
from vaekit.config.presets import PRESETS
from vaekit.models.registry import offers, registered

PAGE = Path(__file__).parents[2] / "docs" / "parts.md"

HEAD = """# The parts, and the names of their combinations

A model is one part from every room: `--posterior.kind iaf --posterior.steps 2` on the command line,
`posterior={"kind": "iaf", "steps": 2}` from Python. [The mathematics](mathematics.md) has the formulas, [how to add a
part](adding-a-part.md) the way to more. This page is written by `python tools/docs/parts.py`.
"""


def rooms() -> list[str]:
    lines = []
    for room in ROOMS:
        if room == "decoder":  # shares its settings with the encoder
            continue
        lines += ["", f"## {'Encoder and decoder' if room == 'encoder' else room.capitalize()}", ""]
        lines += ["| kind | what it is | settings and their defaults |", "|---|---|---|"]
        for kind, model in parts_of(room).items():
            settings = [
                f"`{name}` {','.join(map(str, field.default)) if isinstance(field.default, tuple) else field.default}"
                for name, field in model.model_fields.items()
                if name != "kind" and field.default != ""
            ]
            about = (model.__doc__ or "").replace("|", "\\|")
            lines.append(f"| `{kind}` | {about} | {', '.join(settings)} |")
    return lines


def pairs() -> list[str]:
    """Which objective goes with which posterior and prior, all else default."""
    lines = ["", "## What goes together", ""]
    lines += ["Whatever is not listed is refused before training, with a sentence that says what would work.", ""]
    lines += ["| objective | posteriors | priors |", "|---|---|---|"]
    for kind, settings in parts_of("objective").items():
        needs = registered("objective")[kind](**settings().model_dump(exclude={"kind"})).needs
        able = {
            room: [name for name, part in registered(room).items() if needs.get(room, frozenset()) <= offers(part)]
            for room in ("posterior", "prior")
        }
        everything = {room: able[room] == list(registered(room)) for room in able}
        cells = ["all" if everything[room] else ", ".join(f"`{name}`" for name in able[room]) for room in able]
        lines.append(f"| `{kind}` | {cells[0]} | {cells[1]} |")
    lines += [
        "",
        "`vamp` needs a posterior with a density anywhere (not `iaf` or `delta`); `class` needs `--conditional`;",
        "`free_bits` needs the posterior `gaussian` and the prior `normal` or `class`; `mmd` with a `beta` above 0",
        "needs a posterior with a density. A latent image needs `conv` or `resnet`.",
    ]
    return lines


def names() -> list[str]:
    lines = ["", "## Presets", "", "| name | what it is | parts | paper | checked |", "|---|---|---|---|---|"]
    for name, preset in PRESETS.items():
        line = parts(resolve(preset=name))
        lines.append(f"| `{name}` | {preset.about} | {line} | {preset.paper} | {'; '.join(map(str, preset.checked))} |")
    return lines


def main() -> int:
    page = HEAD + "\n".join([*rooms(), *pairs(), *names(), ""])
    if "--check" in sys.argv:
        return int(PAGE.read_text(encoding="utf-8") != page)
    PAGE.write_text(page, encoding="utf-8")
    print(f"Wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
