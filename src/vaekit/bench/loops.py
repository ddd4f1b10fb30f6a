"""One epoch of the same network on the same images, trained by a bare PyTorch loop and by vaekit.

vaekit also validates, which a bare loop does not: use a pack whose validation split is one image.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam, Optimizer

from vaekit.bench.measure import RunOnce
from vaekit.config.config import Config
from vaekit.config.overrides import override
from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import Pack
from vaekit.models.builder import build
from vaekit.models.terms import Objective
from vaekit.models.vae import VAE
from vaekit.training.loop import Progress, train
from vaekit.training.optimizers import compute_dtype, make_optimizer
from vaekit.training.step import TrainStep
from vaekit.utils.device import flush_denormals, keep_freed_memory, matmul_precision


@contextmanager
def training_process() -> Iterator[None]:
    """The process settings of a vaekit training: keep freed memory, flush denormal numbers to zero."""
    with keep_freed_memory(), flush_denormals():
        yield


def make_model(config: Config, pack: Pack, device: torch.device) -> tuple[VAE, Objective]:
    model, objective = build(config, pack.shape)
    return model.to(device).train(), objective


def plain_loss(model: VAE, x: Tensor) -> Tensor:
    """The usual VAE loss: binary cross-entropy of one sample, and the closed-form KL divergence."""
    parameters = model.posterior.head(model.encoder(x)).flatten(1)  # type: ignore[operator]
    loc, log_variance = parameters.chunk(2, dim=1)
    z = loc + torch.exp(0.5 * log_variance) * torch.randn_like(loc)
    logits = model.decoder(z)
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (reconstruction - 0.5 * torch.sum(1 + log_variance - loc.pow(2) - log_variance.exp())) / len(x)


def plain_step(model: VAE, optimizer: Optimizer, x: Tensor) -> None:
    loss = plain_loss(model, x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def bare_loop(
    config: Config, pack: Pack, device: torch.device, fused: bool = True, process_settings: bool = False
) -> RunOnce:
    """A function that trains one epoch on slices of a float32 tensor, without shuffling, EMA or metrics.

    Args:
        config: the network, its optimizer and the batch size.
        pack: the images.
        device: where to train.
        fused: use vaekit's optimizer, torch's Adam in one fused kernel; else torch's default Adam.
        process_settings: use the process settings of a vaekit training.
    """
    model, _ = make_model(config, pack, device)
    x = torch.from_numpy(np.array(pack.images[pack.splits["train"]])).to(device).permute(0, 3, 1, 2) / 255
    optimizer = make_optimizer(model.parameters(), config.training) if fused else Adam(model.parameters())
    size = int(config.training.batch_size)
    batches = [batch for batch in x.split(size) if len(batch) == size]

    def run_once() -> int:
        with training_process() if process_settings else nullcontext():
            for batch in batches:
                plain_step(model, optimizer, batch)
            synchronize(device)
        return len(batches) * size

    return run_once


def vaekit_loop(config: Config, pack: Pack, device: torch.device, **settings: Any) -> RunOnce:
    """A function that trains one epoch as `vaekit train` does, not compiled unless `settings` ask for it."""
    config = override(config, {"epochs": 1_000_000, "compile": "off"}, settings)
    model, objective = make_model(config, pack, device)
    model.precision = compute_dtype(config.training)
    size = int(config.training.batch_size)
    loader = ImageLoader(pack, config.data, size, 0, device)
    train_step = TrainStep(model, objective, config.training, loader.steps_per_epoch)
    epochs = train(train_step, loader, config.training.epochs, Progress(), lambda _: False)

    def run_once() -> int:
        with training_process(), matmul_precision(tf32=config.training.precision == "tf32"):
            next(epochs)
            synchronize(device)
        return int(loader.steps_per_epoch * size)

    return run_once


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    torch.get_device_module(device).synchronize()
