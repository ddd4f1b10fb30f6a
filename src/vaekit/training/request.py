"""What a user asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from vaekit.errors import UserError, setting
from vaekit.runs.metadata import Track

OPEN_LENGTH = {"epochs": 0, "steps_per_epoch": 0, "flow_matching": {"steps": 0}}
"""Settings with which the length of both stages follows from the time."""


@dataclass(frozen=True)
class TrainRequest:
    """What a user asked for."""

    source: Any = None
    """The data, as `vaekit.train` takes them."""
    layers: tuple[Mapping[str, Any], ...] = ()
    """Settings over the preset's; later ones override earlier ones."""
    preset: str | None = None
    out: Path | None = None
    resume: bool = False
    minutes: float | None = None
    """Time for all of it, from which epochs follow."""
    max_minutes: float | None = None
    quiet: bool = False
    networks: Mapping[str, nn.Module] = field(default_factory=dict)
    """The user's encoder or decoder, given from Python."""
    report: bool = True
    """Whether a report is written afterwards, which counts in the time left."""
    config: Mapping[str, Any] | None = None
    """Settings of a file or a run, which `layers` override."""
    from_run: Path | None = None
    """The folder of a run whose weights the new one starts from."""
    track: Track | None = None
    """The tracker; None for that of a resumed run."""

    @property
    def settings(self) -> tuple[Mapping[str, Any], ...]:
        """All settings over the preset's, those of `config` first."""
        return (self.config or {}, *self.layers)


def gives(request: TrainRequest, part: str, name: str) -> bool:
    """Whether the user gave the setting `name` of a `part` of the configuration."""
    parts = [layer.get(part) for layer in request.settings]
    return any(isinstance(given, Mapping) and name in given for given in parts)


def with_open_length(request: TrainRequest, resumed: bool) -> TrainRequest:
    """The request, with the length left open where the time is given, unless it was chosen when a resumed run
    began.

    Raises:
        UserError: the time is out of range, or the number of epochs is given as well.
    """
    if request.minutes is not None and not request.minutes > 0:
        raise UserError(f"must be greater than 0 (got {request.minutes}).", option="minutes")
    if request.max_minutes is not None and not request.max_minutes >= 0:
        raise UserError(f"must be at least 0 (got {request.max_minutes}).", option="max_minutes")
    if request.minutes is None:
        return request
    if any("epochs" in layer or "epochs" in layer.get("training", {}) for layer in request.layers):
        raise UserError(
            f"{setting('minutes', request.minutes)} and {setting('epochs')} exclude each other.",
            f"Omit one of them, or use {setting('max_minutes', request.minutes)}.",
        )
    return request if resumed else replace(request, layers=(OPEN_LENGTH, *request.layers))
