"""What is measured: trainings of three networks, a folder of JPEGs from the first byte, and the use of a model."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vaekit.bench import baselines
from vaekit.bench.measure import BenchResult, RunOnce, run_interleaved
from vaekit.bench.photos import photo
from vaekit.bench.shares import shares
from vaekit.config.data import DataConfig
from vaekit.config.overrides import resolve
from vaekit.data.decoding.pool import cores
from vaekit.data.packs.cache import clear_cache
from vaekit.data.packs.pack import open_pack
from vaekit.evaluation.likelihood import DECODED_PIXELS, estimate_importance
from vaekit.latents.sampling import CHUNK, decode_images, draw_latents, to_uint8
from vaekit.models.builder import build
from vaekit.runs.image_set import BATCH

PRECISIONS = {
    "cpu": {"vaekit, float32": "32", "vaekit, bfloat16": "bf16"},
    "cuda": {"vaekit, float32": "32", "vaekit, TF32": "tf32", "vaekit, bfloat16": "bf16"},
}


COMPILED = "vaekit, bfloat16, compiled"


LIMIT = "bare loop"


SAME_PROCESS_SETTINGS = "bare loop, process settled"


USUAL = "bare loop, torch's default Adam"


LOADER = "script with DataLoader"


PYTHAE = "Pythae"


@dataclass(frozen=True)
class Network:
    """A network to train, and the images it is trained on: `count` of `side`, None for the bundled sample, three times,
    which makes turns of a second."""

    about: str
    settings: Mapping[str, Any]
    side: int | None = None
    count: int = 0
    compiled: bool = False
    """Whether compiling is tried: half a minute, or many where the network is large."""


NETWORKS = {
    "mlp": Network(
        "784-400-20, batches of 128, bundled Fashion-MNIST",
        {"encoder": "mlp", "decoder": "mlp", "latents": 20, "batch_size": 128},
        compiled=True,
    ),
    "conv": Network(
        "the default convolutions, 64x64x3, batches of 64", {"batch_size": 64}, side=64, count=1070, compiled=True
    ),
    "resnet": Network(
        "residual blocks with attention, 128x128x3, batches of 16",
        {"encoder": "resnet", "decoder": "resnet", "batch_size": 16},
        side=128,
        count=72,
    ),
}


def _precisions(device: torch.device) -> Mapping[str, str]:
    return PRECISIONS.get(device.type, PRECISIONS["cpu"])


def training(name: str, rounds: int, device: torch.device) -> BenchResult:
    """A network trained by everyone."""
    network = NETWORKS[name]
    config = resolve(network.settings, {"validation": "last:1"})
    images = made_up(network.side, network.count) if network.side else np.concatenate([bundled()] * 3)
    pack = open_pack(images, config.data, quiet=True)
    runs_once: dict[str, RunOnce] = {
        LIMIT: baselines.bare(config, pack, device),
        SAME_PROCESS_SETTINGS: baselines.bare(config, pack, device, process_settings=True),
        USUAL: baselines.bare(config, pack, device, fused=False),
        LOADER: baselines.dataloader(config, pack, device),
    }
    precisions = _precisions(device)
    runs_once |= {name: baselines.vaekit(config, pack, device, precision=p) for name, p in precisions.items()}
    if network.compiled:
        runs_once[COMPILED] = baselines.vaekit(config, pack, device, precision="bf16", compile="on")
    missing = {}
    if baselines.has_pythae():
        runs_once[PYTHAE] = baselines.pythae(config, pack, device)
    else:
        missing[PYTHAE] = "pip install --no-deps pythae cloudpickle imageio tqdm"
    found = run_interleaved(runs_once, rounds)
    source = None if network.side is None else np.array(pack.images)
    spent = shares({**network.settings, "epochs": 2 if network.side else 20, "device": str(device)}, source)
    return BenchResult(network.about, LIMIT, found, missing, spent)


# --- A folder of JPEGs -----------------------------------------------------------------------------------------------

SIDE, PHOTOS = 64, 1000


IMAGE_FOLDER = "ImageFolder and DataLoader"


def _write_photo(task: tuple[str, int]) -> None:
    folder, seed = task
    photo(seed).save(Path(folder) / f"{seed:04d}.jpg", quality=85)


class ImageFolder(Dataset[Tensor]):
    """As torchvision's ImageFolder with Resize, CenterCrop and ToTensor."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as file:
            image = file.convert("RGB")
        short = min(image.size)
        width, height = (SIDE * side // short for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - SIDE) // 2, (height - SIDE) // 2
        return baselines.to_tensor(image.crop((left, top, left + SIDE, top + SIDE)))


def folder(rounds: int, device: torch.device, first: bool) -> BenchResult:
    """From JPEGs of 800x600 to a trained epoch: `first`, with nothing read before, or once more."""
    config = resolve({"size": SIDE, "batch_size": 64, "validation": "last:1"})  # all train, as with the others
    with tempfile.TemporaryDirectory() as scratch:
        with get_context("fork").Pool(cores()) as pool:
            pool.map(_write_photo, [(scratch, seed) for seed in range(PHOTOS)])
        files = sorted(Path(scratch).iterdir())
        pack = open_pack(scratch, config.data, quiet=True)
        theirs = baselines.loader_turn(config, pack, device, ImageFolder(files))
        ours = {name: baselines.vaekit(config, pack, device, precision=p) for name, p in _precisions(device).items()}

        def theirs_from_nothing() -> int:
            _forget(files)
            return theirs()

        def from_nothing(run_once: RunOnce) -> int:
            _forget(files)
            clear_cache()
            open_pack(scratch, config.data, quiet=True)
            return run_once()  # on the same images, mapped from the pack that was there before

        runs_once = {IMAGE_FOLDER: theirs_from_nothing if first else theirs}
        runs_once |= {name: partial(from_nothing, run_once) if first else run_once for name, run_once in ours.items()}
        if not first:
            runs_once[LIMIT] = baselines.bare(config, pack, device)
        when = "the first epoch, from a cold cache" if first else "later epochs"
        about = f"{PHOTOS:,} JPEGs of 800x600 to {SIDE}x{SIDE}, the default convolutions, batches of 64: {when}"
        return BenchResult(about, IMAGE_FOLDER if first else LIMIT, run_interleaved(runs_once, rounds))


def _forget(files: list[Path]) -> None:
    """Ask the system to drop files from its memory, so that they come from the disk again."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            if hasattr(os, "posix_fadvise"):
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


# --- The use of a model ----------------------------------------------------------------------------------------------


def generation(rounds: int, device: torch.device) -> BenchResult:
    """New images, against the decoder alone."""
    model, _ = build(resolve({}), (3, 64, 64))
    model.to(device).eval()
    z = torch.randn(512, model.latents, device=device)

    @torch.no_grad()
    def bare() -> int:
        for part in z.split(CHUNK):
            torch.sigmoid(model.decoder(part)).mul(255).round().to(torch.uint8).cpu()
        return len(z)

    def ours() -> int:
        return len(to_uint8(decode_images(model, draw_latents(model, len(z), 0).to(device))))

    about = "512 new images of 64x64x3 from the default convolutions, float32"
    return BenchResult(about, "bare decoder", run_interleaved({"bare decoder": bare, "vaekit": ours}, rounds))


def evaluation(rounds: int, device: torch.device) -> BenchResult:
    """Importance-weighted likelihood, against the decoder and log p(x | z) at the same number of z."""
    samples = 500
    model, _ = build(resolve(preset="burda-1"), (1, 28, 28))
    model.to(device).eval()
    x = torch.rand(BATCH, 1, 28, 28, device=device).round()
    at_once = max(1, DECODED_PIXELS[device.type] // x.numel())
    z = torch.randn(at_once * BATCH, model.latents, device=device)

    @torch.no_grad()
    def bare() -> int:
        for start in range(0, samples, at_once):
            count = min(at_once, samples - start)
            logits = model.decoder(z[: count * BATCH]).unflatten(0, (count, BATCH))
            F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum((2, 3, 4))
        baselines.finish(device)
        return BATCH

    def ours() -> int:
        estimate_importance(model, x, None, samples)
        baselines.finish(device)
        return BATCH

    about = f"importance-weighted likelihood, {samples} samples, 784-200-200-50, float32"
    runs_once = {"bare decoder and log-likelihood": bare, "vaekit": ours}
    return BenchResult(about, "bare decoder and log-likelihood", run_interleaved(runs_once, rounds))


def scaling(rounds: int, device: torch.device) -> BenchResult:
    """An epoch of ten times as many images."""
    settings = NETWORKS["mlp"].settings
    config = resolve(settings)
    few = bundled()
    packs = {"few images": few, "ten times as many": np.concatenate([few] * 10)}
    runs_once = {
        name: baselines.vaekit(config, open_pack(images, config.data, quiet=True), device, precision="32")
        for name, images in packs.items()
    }
    return BenchResult(
        "784-400-20: images a second from 9,000 images and from 90,000",
        "few images",
        run_interleaved(runs_once, rounds),
    )


def bundled() -> NDArray[np.uint8]:
    return np.array(open_pack(None, DataConfig(), quiet=True).images)


def made_up(side: int, count: int) -> NDArray[np.uint8]:
    return np.stack([np.asarray(photo(seed, side, side)) for seed in range(count)])


@contextmanager
def scratch_cache() -> Iterator[None]:
    """A cache of packs for as long as the block."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


WORKLOADS: dict[str, Callable[[int, torch.device], BenchResult]] = {
    **{name: partial(training, name) for name in NETWORKS},
    "folder-first": partial(folder, first=True),
    "folder-later": partial(folder, first=False),
    "generation": generation,
    "evaluation": evaluation,
    "scaling": scaling,
}
"""By name: a function of the number of rounds and the device."""
