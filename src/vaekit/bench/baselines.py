"""Who trains the same network on the same images: a bare loop, a script around a DataLoader, Pythae, and vaekit.

Each maker returns a turn: one epoch. vaekit's validation, which the others do not have, is left one image.
"""

import contextlib
import importlib.util
import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader, Dataset

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

WORKERS = 2
"""Processes of a DataLoader."""


@contextmanager
def training_process() -> Iterator[None]:
    with keep_freed_memory(), flush_denormals():
        yield


def made(config: Config, pack: Pack, device: torch.device) -> tuple[VAE, Objective]:
    model, objective = build(config, pack.shape)
    return model.to(device).train(), objective


def plain_loss(model: VAE, x: Tensor) -> Tensor:
    """The loss as everyone writes it: binary cross-entropy of a sample, and the closed KL divergence."""
    loc, log_variance = model.posterior.head(model.encoder(x)).flatten(1).chunk(2, dim=1)  # type: ignore[operator]
    z = loc + torch.exp(0.5 * log_variance) * torch.randn_like(loc)
    logits = model.decoder(z)
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (reconstruction - 0.5 * torch.sum(1 + log_variance - loc.pow(2) - log_variance.exp())) / len(x)


def step(model: VAE, optimizer: Optimizer, x: Tensor) -> None:
    loss = plain_loss(model, x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def bare(
    config: Config, pack: Pack, device: torch.device, fused: bool = True, process_settings: bool = False
) -> RunOnce:
    """Slices of one float32 tensor that is in memory already, and nothing else: no order, no average of the weights,
    no metrics. `fused`: with vaekit's optimizer, which is torch's own Adam in one kernel, else as torch has it by
    default; `schedule_end`: in a process whose memory and smallest numbers are settled as in a training of vaekit."""
    model, _ = made(config, pack, device)
    x = torch.from_numpy(np.array(pack.images[pack.splits["train"]])).to(device).permute(0, 3, 1, 2) / 255
    optimizer = make_optimizer(model.parameters(), config.training) if fused else Adam(model.parameters())
    batches = [part for part in x.split(int(config.training.batch_size)) if len(part) == config.training.batch_size]

    def run_once() -> int:
        with training_process() if process_settings else contextlib.nullcontext():
            for part in batches:
                step(model, optimizer, part)
            finish(device)
        return sum(map(len, batches))

    return run_once


def vaekit(config: Config, pack: Pack, device: torch.device, **settings: Any) -> RunOnce:
    """The loop that `vaekit train` runs."""
    config = override(config, {"epochs": 1_000_000, "compile": "off"}, settings)
    model, objective = made(config, pack, device)
    model.precision = compute_dtype(config.training)
    size = int(config.training.batch_size)
    loader = ImageLoader(pack, config.data, size, 0, device)
    train_step = TrainStep(model, objective, config.training, loader.steps_per_epoch)
    epochs = train(train_step, loader, config.training.epochs, Progress(), lambda _: False)

    def run_once() -> int:
        with training_process(), matmul_precision(tf32=config.training.precision == "tf32"):
            next(epochs)
            finish(device)
        return int(loader.steps_per_epoch * size)

    return run_once


class Pictures(Dataset[Tensor]):
    """As torchvision's data sets and ToTensor have it: each image a PIL image, then a float tensor, by itself."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images[index]
        return to_tensor(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image))


def to_tensor(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image))
    return (pixels[..., None] if pixels.ndim == 2 else pixels).permute(2, 0, 1).contiguous().float().div(255)


def dataloader(config: Config, pack: Pack, device: torch.device) -> RunOnce:
    """A script around a DataLoader with two workers."""
    return loader_turn(config, pack, device, Pictures(np.array(pack.images[pack.splits["train"]])))


def loader_turn(config: Config, pack: Pack, device: torch.device, images: Dataset[Tensor]) -> RunOnce:
    model, _ = made(config, pack, device)
    optimizer = Adam(model.parameters())
    size = int(config.training.batch_size)
    loader = DataLoader(images, size, shuffle=True, drop_last=True, num_workers=WORKERS)

    def run_once() -> int:
        for x in loader:
            step(model, optimizer, x.to(device))
        finish(device)
        return len(loader) * size

    return run_once


def has_pythae() -> bool:
    return importlib.util.find_spec("pythae") is not None


def pythae(config: Config, pack: Pack, device: torch.device) -> RunOnce:
    """Pythae's VAE and BaseTrainer around the same encoder and decoder."""
    with quiet():
        from pythae import models
        from pythae.data.datasets import BaseDataset
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

    model, _ = made(config, pack, device)

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            BaseEncoder.__init__(self)
            self.inner, self.head = model.encoder, cast(nn.Module, model.posterior.head)

        def forward(self, x: Tensor) -> Any:
            loc, log_variance = self.head(self.inner(x)).flatten(1).chunk(2, dim=1)
            return ModelOutput(embedding=loc, log_covariance=log_variance)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            BaseDecoder.__init__(self)
            self.inner = model.decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.inner(z)))

    x = torch.from_numpy(np.array(pack.images[pack.splits["train"]])).permute(0, 3, 1, 2).contiguous() / 255
    settings = models.VAEConfig(input_dim=pack.shape, latent_dim=model.latents, reconstruction_loss="bce")
    with quiet(), tempfile.TemporaryDirectory() as folder:  # it makes one there, in which single epochs write nothing
        asked = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=config.training.batch_size,
            learning_rate=1e-3,
            no_cuda=device.type != "cuda",
        )
        trainer = BaseTrainer(
            model=models.VAE(settings, encoder=Encoder(), decoder=Decoder()),
            train_dataset=BaseDataset(x, torch.zeros(len(x))),
            training_config=asked,
        )
        trainer.prepare_training()
    epoch = iter(range(1, 1_000_000))

    def run_once() -> int:
        with quiet():
            trainer.train_step(next(epoch))
        finish(device)
        return len(x)

    return run_once


@contextmanager
def quiet() -> Iterator[None]:
    """Without what a library prints."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
