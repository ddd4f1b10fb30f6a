"""Settings of training. Free of torch."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from vaekit.config.base import BaseConfig


class TrainingConfig(BaseConfig):
    """How the weights are optimized."""

    epochs: int = Field(50, ge=0, le=1_000_000)
    """Passes over the training images; 0 for as many as --minutes allows."""
    steps_per_epoch: int = Field(0, ge=0, le=1_000_000)
    """Steps between two validations; 0 for one pass over the training images."""
    batch_size: int | Literal["auto"] = 128
    """Images per step, or auto: the fastest in a short trial."""
    optimizer: Literal["adam", "adamw", "adamax", "stable_adam", "soap", "sgd"] = "adam"
    """adam, adamw, adamax, sgd, stable_adam (adam with clipped updates, for networks without normalization),
    or soap (slower steps, more progress in each)."""
    learning_rate: float = Field(1e-3, gt=0, le=100)
    """Peak learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate: constant, or cosine decay to zero."""
    ramp: int = Field(0, ge=0)
    """Steps of linear learning-rate warm-up, at most half of all steps."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """Weight decay (decoupled for adamw and soap)."""
    clip: float = Field(0.0, ge=0)
    """Largest gradient norm, in nats per image; 0 for no clipping."""
    perceptual: float = Field(0.0, ge=0, le=1000)
    """Weight of a perceptual loss of reconstructions (LPIPS), in nats per pixel and channel; 0 for none."""
    latent_noise: float = Field(0.0, ge=0, le=10)
    """Noise on the latents that the decoder is trained on, so that it draws new ones better: of every image
    between 0 and this share of the latents' standard deviation."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the weights' moving average, which is saved; 0 for none."""
    patience: int = Field(0, ge=0)
    """Early stopping: epochs without improvement; 0 turns it off."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Random seed. The same seed, data and settings give the same weights on the same machine, except where a
    speed trial chooses the settings (compile or batch size auto)."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "32", "tf32", "bf16"] = "auto"
    """Arithmetic of the networks. 32: float32. tf32: reduced-precision matrix products (NVIDIA Ampere or
    newer). bf16: bfloat16, with weights, KL and likelihood in float32. auto: bf16 for convolutions where the
    hardware supports it, otherwise tf32 where available."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile, which starts slowly: on, off, or auto (only if a short trial shows a gain)."""
    threads: int = Field(0, ge=0, le=1024)
    """CPU threads; 0 for one per core. The number changes results in the last bits."""

    @field_validator("batch_size", mode="before")
    @classmethod
    def _batch_size(cls, value: Any) -> Any:
        text = str(value)
        if text.isdecimal() and 1 <= int(text) <= 1_000_000:
            return int(text)
        if text != "auto":
            raise ValueError("must be a whole number from 1 to 1000000, or auto")
        return text

    @field_validator("compile", mode="before")
    @classmethod
    def _compile(cls, value: Any) -> Any:
        return ("on" if value else "off") if isinstance(value, bool) else value

    @field_validator("device", mode="before")
    @classmethod
    def _device(cls, value: Any) -> str:
        name = str(value)  # also of a torch.device
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", name):
            raise ValueError("must be auto, cpu, cuda, cuda:1 or mps")
        return name
