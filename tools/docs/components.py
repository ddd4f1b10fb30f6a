"""Write docs/components.md from the settings, the registry and the presets; with --check only say whether it is up to date.

python tools/docs/components.py
"""

import sys
from pathlib import Path

import vaekit.models.builder  # noqa: F401  registers the components
from vaekit.config.config import SLOTS, settings_classes
from vaekit.config.overrides import describe_components, resolve
from vaekit.config.presets import PRESETS
from vaekit.models.registry import components, make_component

PAGE = Path(__file__).parents[2] / "docs" / "components.md"

HEAD = """# The components, and the names of their combinations

A model is one component from every slot: `--posterior.kind iaf --posterior.steps 2` on the command line,
`posterior={"kind": "iaf", "steps": 2}` from Python. [The mathematics](mathematics.md) has the formulas, [how to add a
component](adding-a-component.md) the way to more. This page is written by `python tools/docs/components.py`.
"""


def slots() -> list[str]:
    lines = []
    for slot in SLOTS:
        if slot == "decoder":  # shares its settings with the encoder
            continue
        lines += ["", f"## {'Encoder and decoder' if slot == 'encoder' else slot.capitalize()}", ""]
        lines += ["| kind | what it is | settings and their defaults |", "|---|---|---|"]
        for kind, model in settings_classes(slot).items():
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
    for kind, settings in settings_classes("objective").items():
        requires = make_component("objective", settings()).requires
        able = {
            slot: [
                name
                for name, component in components(slot).items()
                if requires.get(slot, frozenset()) <= component.provides
            ]
            for slot in ("posterior", "prior")
        }
        everything = {slot: able[slot] == list(components(slot)) for slot in able}
        cells = ["all" if everything[slot] else ", ".join(f"`{name}`" for name in able[slot]) for slot in able]
        lines.append(f"| `{kind}` | {cells[0]} | {cells[1]} |")
    lines += [
        "",
        "`vamp` needs a posterior with a density anywhere (not `iaf` or `delta`); `class` needs `--conditional`;",
        "`free_bits` needs the posterior `gaussian` and the prior `normal` or `class`; `mmd` with a `beta` above 0",
        "needs a posterior with a density. A latent image needs `conv` or `resnet`.",
    ]
    return lines


def names() -> list[str]:
    lines = ["", "## Presets", "", "| name | what it is | components | paper | checked |", "|---|---|---|---|---|"]
    for name, preset in PRESETS.items():
        line = describe_components(resolve(preset=name))
        lines.append(f"| `{name}` | {preset.about} | {line} | {preset.paper} | {'; '.join(map(str, preset.checked))} |")
    return lines


def main() -> int:
    page = HEAD + "\n".join([*slots(), *pairs(), *names(), ""])
    if "--check" in sys.argv:
        return int(PAGE.read_text(encoding="utf-8") != page)
    PAGE.write_text(page, encoding="utf-8")
    print(f"Wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
