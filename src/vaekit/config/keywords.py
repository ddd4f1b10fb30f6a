"""The settings as typed keyword arguments of `vaekit.train`, so that an editor can complete them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

Component = str | Mapping[str, Any]
"""A component by its kind, or its settings as a dictionary."""


class TrainSettings(TypedDict, total=False):
    """Settings by the names of their flags with underscores; `Config` describes and validates them."""

    latents: int | str
    latent_prior: str
    conditional: bool
    encoder: Any  # a component, or a torch module
    decoder: Any
    posterior: Component
    prior: Component
    likelihood: Component
    objective: Component
    flow_matching: Mapping[str, Any]

    size: int | str | tuple[int, int] | None
    fit: str
    background: str
    range: str
    bands: str | Sequence[int]
    pages: str | int
    include: str | Sequence[str]
    exclude: str | Sequence[str]
    links: str
    split_folders: str
    copies: str
    labels: str | None
    label_column: str | None
    condition: str | Sequence[str] | None
    group: str | None
    alpha: str
    validation: float | str
    flip: bool
    crop: int
    jitter: float
    balance: bool

    epochs: int
    steps_per_epoch: int
    batch_size: int | str
    optimizer: str
    learning_rate: float
    schedule: str
    ramp: int
    weight_decay: float
    clip: float
    perceptual: float
    latent_noise: float
    ema: float
    patience: int
    seed: int
    device: str
    precision: str
    compile: bool | str
    threads: int
