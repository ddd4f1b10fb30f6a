"""Named models as combinations of components: data, read from presets.toml."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaekit.config.base import BaseConfig


class Checked(BaseConfig):
    """A result to compare with a published one, by a row of `benchmarks/paper_table/`."""

    row: str
    nll: float
    """Nats per image on MNIST's test images."""
    published: float

    def __str__(self) -> str:
        row = f"benchmarks/paper_table/rows/{self.row}.toml"
        return f"NLL {self.nll:.2f} (published: {self.published:.2f}) with {row}"


class Preset(BaseConfig):
    purpose: str
    """Heading under which `vaekit presets` lists it."""
    about: str
    """What it is, in at most 55 characters."""
    paper: str
    settings: dict[str, Any]
    """As in a file for `vaekit train --config`."""
    checked: tuple[Checked, ...] = ()


_TOML = Path(__file__).with_name("presets.toml").read_text(encoding="utf-8")
PRESETS = {name: Preset.model_validate(fields) for name, fields in tomllib.loads(_TOML).items()}
"""All presets by name, in the order of presets.toml."""


def leaves_noise_open(preset: str) -> bool:
    """Whether a preset is a choice of prior, posterior or objective only, with the likelihood and networks
    that suit the images. `classic` is what it always was."""
    return preset != "classic" and not {"likelihood", "encoder", "decoder"} & {*PRESETS[preset].settings}


def to_toml(settings: Mapping[str, Any]) -> str:
    """Settings as a file for `vaekit train --config`: plain values, then a table per component."""
    tables = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    # The values of settings are written alike in JSON
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines).strip()
