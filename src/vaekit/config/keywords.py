"""The settings as typed keyword arguments of `vaekit.train`, so that an editor can complete them.

`Config` is where they are defined, described and validated; a test holds this list to it.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

Component = str | Mapping[str, Any]
"""A component by its kind, or its settings as a dictionary."""


class TrainSettings(TypedDict, total=False):
    """Settings of a training, by the names of their flags with underscores."""

    latents: int | str
    conditional: bool
    encoder: Any
    """A kind, a dictionary, or a torch module."""
    decoder: Any
    """A kind, a dictionary, or a torch module."""
    posterior: Component
    prior: Component
    likelihood: Component
    objective: Component

    size: int | str | tuple[int, int] | None
    fit: str
    background: str
    alpha: str
    validation: float | str
    flip: bool
    crop: int
    jitter: float
    balance: bool

    epochs: int
    batch_size: int | str
    optimizer: str
    learning_rate: float
    schedule: str
    ramp: int
    weight_decay: float
    clip: float
    ema: float
    patience: int
    seed: int
    device: str
    precision: str
    compile: bool | str
    threads: int
