"""Settings of training. Free of torch."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from vaekit.config.base import BaseConfig


class TrainingConfig(BaseConfig):
    """How the weights are found."""

    epochs: int = Field(50, ge=1, le=1_000_000)
    """Passes over the training images."""
    batch_size: int | Literal["auto"] = 128
    """Images per step; auto: as many as make a step worth its while on this device, found by trying."""
    optimizer: Literal["adam", "adamw", "adamax", "soap", "sgd"] = "adam"
    """Optimizer; soap learns more per step than adam, at more work a step; sgd has momentum 0.9."""
    learning_rate: float = Field(1e-3, gt=0, le=100)
    """Step size of the optimizer at its highest."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run: constant, or falling to zero along half a cosine."""
    ramp: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from 0; at most half of all steps."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """Pull of the weights towards zero (decoupled for adamw and soap)."""
    clip: float = Field(0.0, ge=0)
    """Largest norm of the gradient, in nats per image per unit of weight; 0 for no clipping."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay per step of the moving average of the weights that is validated and kept; 0 for the weights themselves."""
    patience: int = Field(0, ge=0)
    """Stop after this many epochs without a better validation loss, not counting the KL warm-up; 0: never."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Random seed: the same seed, data and settings give the same weights on the same machine, unless a trial of speed
    decides otherwise (--compile auto in a long run, --batch-size auto)."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "32", "tf32", "bf16"] = "auto"
    """Arithmetic of the networks: 32-bit; tf32, 32-bit numbers of which NVIDIA's matrix units read 19; bf16, bfloat16
    with weights, KL and likelihood in 32-bit; auto: bf16 for convolutions on processors and GPUs made for it, tf32 for
    all else on NVIDIA GPUs."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile, slower to start: on, off, or auto, which tries it where the run is long enough to earn it back."""
    threads: int = Field(0, ge=0, le=1024)
    """Processor threads to compute with; 0 for one per core. Part of what makes a run repeatable bit for bit."""

    @field_validator("batch_size", mode="before")
    @classmethod
    def _batch_size(cls, value: Any) -> Any:
        text = str(value)
        if text.isdecimal() and 1 <= int(text) <= 1_000_000:
            return int(text)
        if text != "auto":
            raise ValueError("should be a whole number from 1 to 1000000, or auto")
        return text

    @field_validator("compile", mode="before")
    @classmethod
    def _compile(cls, value: Any) -> Any:
        return ("on" if value else "off") if isinstance(value, bool) else value

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", value):
            raise ValueError("should be auto, cpu, cuda, cuda:1 or mps")
        return value
