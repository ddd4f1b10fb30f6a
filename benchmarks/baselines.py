"""Compare vaekit with other ways to train the same network: a bare loop, a DataLoader script, and Pythae.

    python benchmarks/baselines.py                    # all workloads of `vaekit bench`, half an hour
    python benchmarks/baselines.py mlp conv --rounds 9 --out benchmarks/results/bench.json
    pip install --no-deps pythae cloudpickle imageio tqdm   # for Pythae

As in `vaekit bench`, everything compared runs in turn in one process, and the median of the rounds is
reported; here `conv`, `resnet` and the folders of JPEGs use synthetic photographs. The result has the format
of `vaekit bench`, plus the shares of a training's time; `tools/docs/performance.py` writes
docs/performance.md from it.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset

from photos import photo
from time_shares import time_shares
from vaekit.bench import workloads
from vaekit.bench.loops import bare_loop, make_model, plain_step, synchronize
from vaekit.bench.measure import BenchResult, RunOnce, Workload, bench, run_interleaved
from vaekit.bench.workloads import BARE_LOOP, FOLDER_IMAGE_SIZE, NETWORKS
from vaekit.config.config import Config
from vaekit.data.packs.pack import Pack

LOADER_WORKERS = 2
"""Worker processes of a DataLoader."""
BARE_LOOP_DEFAULT_ADAM = "bare loop, torch's default Adam"
LOADER = "script with DataLoader"
IMAGE_FOLDER = "ImageFolder and DataLoader"
PYTHAE = "Pythae"


@dataclass(frozen=True)
class BaselineResult(BenchResult):
    """A result, with what only this script reports."""

    missing: dict[str, str] = field(default_factory=dict)
    """Libraries that are not installed, and how to install them."""
    shares: dict[str, float] = field(default_factory=dict)
    """Where the time of a whole training goes, as shares of it."""

    def lines(self, title: str) -> list[str]:
        lines = super().lines(title)
        lines += [f"  {name}: not installed ({command})" for name, command in self.missing.items()]
        if self.shares:
            shares = [f"{part} {share:.1%}" for part, share in self.shares.items() if share >= 0.0005]
            lines.append(f"  time of a training: {', '.join(shares)}")
        return lines


# --- A script around a DataLoader ---------------------------------------------------------------------------


class ArrayDataset(Dataset[Tensor]):
    """One PIL image at a time, converted to a float tensor, like torchvision's data sets with ToTensor."""

    def __init__(self, images: Any) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images[index]
        return to_tensor(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image))


class ImageFolder(Dataset[Tensor]):
    """Like torchvision's ImageFolder with Resize, CenterCrop and ToTensor."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as file:
            image = file.convert("RGB")
        size, short = FOLDER_IMAGE_SIZE, min(image.size)
        width, height = (size * length // short for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - size) // 2, (height - size) // 2
        return to_tensor(image.crop((left, top, left + size, top + size)))


def to_tensor(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image))
    return (pixels[..., None] if pixels.ndim == 2 else pixels).permute(2, 0, 1).contiguous().float().div(255)


def loader_loop(config: Config, pack: Pack, device: torch.device, images: Dataset[Tensor]) -> RunOnce:
    """A script around a DataLoader with two workers."""
    model, _ = make_model(config, pack, device)
    optimizer = Adam(model.parameters())
    size = int(config.training.batch_size)
    loader = DataLoader(images, size, shuffle=True, drop_last=True, num_workers=LOADER_WORKERS)

    def run_once() -> int:
        for x in loader:
            plain_step(model, optimizer, x.to(device))
        synchronize(device)
        return len(loader) * size

    return run_once


# --- Pythae -------------------------------------------------------------------------------------------------


def has_pythae() -> bool:
    return importlib.util.find_spec("pythae") is not None


def pythae_loop(config: Config, pack: Pack, device: torch.device) -> RunOnce:
    """Pythae's VAE and BaseTrainer around the same encoder and decoder."""
    with quiet():
        from pythae.data.datasets import BaseDataset
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

    model, _ = make_model(config, pack, device)
    x = torch.from_numpy(np.array(pack.images[pack.splits["train"]])).permute(0, 3, 1, 2).contiguous() / 255
    with (
        quiet(),
        tempfile.TemporaryDirectory() as folder,
    ):  # the trainer creates it; single epochs write nothing there
        settings = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=config.training.batch_size,
            learning_rate=1e-3,
            no_cuda=device.type != "cuda",
        )
        trainer = BaseTrainer(
            model=pythae_model(model, pack.shape),
            train_dataset=BaseDataset(x, torch.zeros(len(x))),
            training_config=settings,
        )
        trainer.prepare_training()
    epoch = iter(range(1, 1_000_000))

    def run_once() -> int:
        with quiet():
            trainer.train_step(next(epoch))
        synchronize(device)
        return len(x)

    return run_once


def pythae_model(model: Any, shape: tuple[int, int, int]) -> Any:
    """Pythae's VAE with the encoder and decoder of a vaekit model."""
    from pythae import models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

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

    settings = models.VAEConfig(input_dim=shape, latent_dim=model.latents, reconstruction_loss="bce")
    return models.VAE(settings, encoder=Encoder(), decoder=Decoder())


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what a library prints and logs."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


# --- Workloads ----------------------------------------------------------------------------------------------


def training(name: str, rounds: int, device: torch.device) -> BaselineResult:
    """A network trained in every way, and where the time of a whole training goes."""
    network = NETWORKS[name]
    config, pack = workloads.training_pack(network, workloads.training_images(network, photo))
    runs_once = workloads.training_runs(network, config, pack, device)
    runs_once[BARE_LOOP_DEFAULT_ADAM] = bare_loop(config, pack, device, fused=False)
    runs_once[LOADER] = loader_loop(
        config, pack, device, ArrayDataset(np.array(pack.images[pack.splits["train"]]))
    )
    missing = {}
    if has_pythae():
        runs_once[PYTHAE] = pythae_loop(config, pack, device)
    else:
        missing[PYTHAE] = "pip install --no-deps pythae cloudpickle imageio tqdm"
    speeds = run_interleaved(runs_once, rounds)
    source = None if network.size is None else np.array(pack.images)
    shares = time_shares(
        {**network.settings, "epochs": 2 if network.size else 20, "device": str(device)}, source
    )
    return BaselineResult(network.about, BARE_LOOP, speeds, missing, shares)


def folder(rounds: int, device: torch.device, first: bool) -> BaselineResult:
    """The first epoch from JPEGs, with nothing cached, or a later one."""
    with workloads.jpeg_folder(photo) as (config, pack):
        files = sorted(Path(pack.source).iterdir())
        train_once = loader_loop(config, pack, device, ImageFolder(files))

        def read_and_train() -> int:
            workloads.drop_from_file_cache(pack.source)
            return train_once()

        runs_once = workloads.folder_runs(config, pack, device, first)
        runs_once[IMAGE_FOLDER] = read_and_train if first else train_once
        limit = IMAGE_FOLDER if first else BARE_LOOP
        return BaselineResult(workloads.folder_about(first), limit, run_interleaved(runs_once, rounds))


WORKLOADS: dict[str, Workload] = workloads.WORKLOADS | {
    **{name: partial(training, name) for name in NETWORKS},
    "folder-first": partial(folder, first=True),
    "folder-later": partial(folder, first=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="workload", help=f"{', '.join(WORKLOADS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=9, help="interleaved measurement rounds (default 9)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    results = bench(options.workloads, options.rounds, WORKLOADS)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")
        print(f"Wrote {options.out}")


if __name__ == "__main__":
    main()
