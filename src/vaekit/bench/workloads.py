"""The workloads: training three networks, training from a folder of JPEGs, and using a model."""

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

from vaekit.bench.loops import bare_loop, synchronize, vaekit_loop
from vaekit.bench.measure import BenchResult, RunOnce, Workload, run_interleaved
from vaekit.config.config import Config
from vaekit.config.data import DataConfig
from vaekit.config.overrides import resolve
from vaekit.data.decoding.pool import cores
from vaekit.data.packs.cache import clear_cache
from vaekit.data.packs.pack import Pack, open_pack
from vaekit.evaluation.likelihood import DECODED_PIXELS, estimate_importance
from vaekit.latents.sampling import CHUNK, decode_images, draw_latents, to_uint8
from vaekit.models.builder import build
from vaekit.runs.image_set import EVAL_BATCH

DrawImage = Callable[[int, int, int], Image.Image]
"""A seed, a width and a height -> an RGB image."""
BARE_LOOP = "bare loop"
BARE_LOOP_TUNED = "bare loop, tuned process"
COMPILED = "vaekit, bfloat16, compiled"
PRECISIONS = {"vaekit, float32": "32", "vaekit, TF32": "tf32", "vaekit, bfloat16": "bf16"}


def synthetic_image(seed: int, width: int, height: int) -> Image.Image:
    """A random coarse pattern, enlarged smoothly, with pixel noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    noisy = smooth + rng.normal(scale=4, size=(height, width, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def bundled_images() -> NDArray[np.uint8]:
    return np.array(open_pack(None, DataConfig(), quiet=True).images)


# --- Training a network -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A network to train, and the images it is trained on."""

    about: str
    settings: Mapping[str, Any]
    size: int | None = None
    """Edge of synthetic images, in pixels; None for the bundled sample three times, an epoch of a second."""
    count: int = 0
    """Number of synthetic images."""
    compiled: bool = False
    """Whether to measure it compiled as well, which takes half a minute, or many for a large network."""


NETWORKS = {
    "mlp": Network(
        "784-400-20, batches of 128, bundled Fashion-MNIST",
        {"encoder": "mlp", "decoder": "mlp", "latents": 20, "batch_size": 128},
        compiled=True,
    ),
    "conv": Network(
        "the default convolutions, 64x64x3, batches of 64",
        {"batch_size": 64},
        size=64,
        count=1070,
        compiled=True,
    ),
    "resnet": Network(
        "residual blocks with attention, 128x128x3, batches of 16",
        {"encoder": "resnet", "decoder": "resnet", "batch_size": 16},
        size=128,
        count=72,
    ),
}


def training_images(network: Network, draw: DrawImage = synthetic_image) -> NDArray[np.uint8]:
    """The images [N, H, W, C] that a network is trained on."""
    if network.size is None:
        return np.concatenate([bundled_images()] * 3)
    return np.stack([np.asarray(draw(seed, network.size, network.size)) for seed in range(network.count)])


def training_pack(network: Network, images: NDArray[np.uint8]) -> tuple[Config, Pack]:
    config = resolve(network.settings, {"validation": "last:1"})
    return config, open_pack(images, config.data, quiet=True)


def training_runs(network: Network, config: Config, pack: Pack, device: torch.device) -> dict[str, RunOnce]:
    """Bare loops, and vaekit in each precision."""
    runs_once = {BARE_LOOP: bare_loop(config, pack, device)}
    runs_once[BARE_LOOP_TUNED] = bare_loop(config, pack, device, process_settings=True)
    runs_once |= vaekit_runs(config, pack, device)
    if network.compiled:
        runs_once[COMPILED] = vaekit_loop(config, pack, device, precision="bf16", compile="on")
    return runs_once


def vaekit_runs(config: Config, pack: Pack, device: torch.device) -> dict[str, RunOnce]:
    """vaekit in each precision of the device."""
    kinds = {name: kind for name, kind in PRECISIONS.items() if kind != "tf32" or device.type == "cuda"}
    return {name: vaekit_loop(config, pack, device, precision=kind) for name, kind in kinds.items()}


def training(name: str, rounds: int, device: torch.device) -> BenchResult:
    """A network trained by a bare loop and by vaekit."""
    network = NETWORKS[name]
    config, pack = training_pack(network, training_images(network))
    runs_once = training_runs(network, config, pack, device)
    return BenchResult(network.about, BARE_LOOP, run_interleaved(runs_once, rounds))


# --- Training from a folder of JPEGs ------------------------------------------------------------------------

JPEG_COUNT = 1000
JPEG_SIZE = (800, 600)
FOLDER_IMAGE_SIZE = 64
"""Edge that JPEGs are resized to, in pixels."""


@contextmanager
def jpeg_folder(draw: DrawImage = synthetic_image) -> Iterator[tuple[Config, Pack]]:
    """The pack of a temporary folder of JPEGs that `draw` makes, and how to train on all but one."""
    config = resolve({"size": FOLDER_IMAGE_SIZE, "batch_size": 64, "validation": "last:1"})
    with tempfile.TemporaryDirectory() as scratch:
        write_jpegs(Path(scratch), JPEG_COUNT, draw)
        yield config, open_pack(scratch, config.data, quiet=True)


def write_jpegs(folder: Path, count: int, draw: DrawImage = synthetic_image) -> None:
    with get_context("fork").Pool(cores()) as pool:
        pool.map(partial(_write_jpeg, folder, draw), range(count))


def _write_jpeg(folder: Path, draw: DrawImage, seed: int) -> None:
    draw(seed, *JPEG_SIZE).save(folder / f"{seed:04d}.jpg", quality=85)


def folder_runs(config: Config, pack: Pack, device: torch.device, first: bool) -> dict[str, RunOnce]:
    """vaekit in each precision, and a bare loop on the same images in memory.

    With `first`, vaekit's epochs begin with reading the files from disk; otherwise the pack exists.
    """

    def read_and_train(train_once: RunOnce) -> int:
        drop_from_file_cache(pack.source)
        clear_cache()
        open_pack(pack.source, config.data, quiet=True)
        return train_once()  # on the same images, still mapped from the first pack

    runs_once = vaekit_runs(config, pack, device)
    if first:
        runs_once = {name: partial(read_and_train, train_once) for name, train_once in runs_once.items()}
    return {BARE_LOOP: bare_loop(config, pack, device)} | runs_once


def folder_about(first: bool) -> str:
    when = "the first epoch, from a cold cache" if first else "later epochs"
    size = f"{FOLDER_IMAGE_SIZE}x{FOLDER_IMAGE_SIZE}"
    return f"{JPEG_COUNT:,} JPEGs of 800x600 to {size}, the default convolutions, batches of 64: {when}"


def folder(rounds: int, device: torch.device, first: bool) -> BenchResult:
    """The first epoch from JPEGs, or a later one, and a bare loop that reads no files."""
    with jpeg_folder() as (config, pack):
        speeds = run_interleaved(folder_runs(config, pack, device, first), rounds)
        return BenchResult(folder_about(first), BARE_LOOP, speeds)


def drop_from_file_cache(folder: str) -> None:
    """Ask the system to drop the files of a folder from its memory, so that they are read from disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in Path(folder).iterdir():
        with path.open("rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# --- Using a model ------------------------------------------------------------------------------------------


def generation(rounds: int, device: torch.device) -> BenchResult:
    """New images, and the decoder alone."""
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
    """The importance-weighted likelihood, and the decoder and log p(x | z) alone for as many z."""
    samples, bare_name = 500, "bare decoder and log-likelihood"
    model, _ = build(resolve(preset="burda-1"), (1, 28, 28))
    model.to(device).eval()
    x = torch.rand(EVAL_BATCH, 1, 28, 28, device=device).round()
    at_once = max(1, DECODED_PIXELS[device.type] // x.numel())
    z = torch.randn(at_once * EVAL_BATCH, model.latents, device=device)

    @torch.no_grad()
    def bare() -> int:
        for start in range(0, samples, at_once):
            count = min(at_once, samples - start)
            logits = model.decoder(z[: count * EVAL_BATCH]).unflatten(0, (count, EVAL_BATCH))
            F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum((2, 3, 4))
        synchronize(device)
        return EVAL_BATCH

    def ours() -> int:
        estimate_importance(model, x, None, samples)
        synchronize(device)
        return EVAL_BATCH

    about = f"importance-weighted likelihood, {samples} samples, 784-200-200-50, float32"
    return BenchResult(about, bare_name, run_interleaved({bare_name: bare, "vaekit": ours}, rounds))


def scaling(rounds: int, device: torch.device) -> BenchResult:
    """An epoch of the bundled sample, and of ten times as many images."""
    config = resolve(NETWORKS["mlp"].settings)
    few = bundled_images()
    runs_once = {}
    for name, images in {"few images": few, "ten times as many": np.concatenate([few] * 10)}.items():
        pack = open_pack(images, config.data, quiet=True)
        runs_once[name] = vaekit_loop(config, pack, device, precision="32")
    about = "784-400-20: an epoch of 9,000 images and one of 90,000"
    return BenchResult(about, "few images", run_interleaved(runs_once, rounds))


WORKLOADS: dict[str, Workload] = {
    **{name: partial(training, name) for name in NETWORKS},
    "folder-first": partial(folder, first=True),
    "folder-later": partial(folder, first=False),
    "generation": generation,
    "evaluation": evaluation,
    "scaling": scaling,
}
