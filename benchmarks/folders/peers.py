"""Train a peer on a folder and write its new images: run with the Python that has the peer installed.

    python peers.py CONTESTANT FOLDER OUT MARKS [--threads 2]

MARKS is a list such as 5,20,60: minutes of training, after each of which OUT/5/new.npy and, of an
autoencoder, OUT/5/reconstructions.npy are written. The clock stands while they are made. Settings are the
defaults of the package's README or command line, except where a note says so. These need, without their
dependencies:

    pip install --no-deps pythae denoising-diffusion-pytorch lightweight-gan torchvision accelerate \\
        pytorch-fid kornia
"""

import argparse
import importlib.util
import itertools
import json
import sys
import time
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NEW_IMAGES = {"pythae": 1000, "denoising-diffusion-pytorch": 128, "lightweight-gan": 1000}
"""Fewer where one takes a second of both cores."""


class Clock:
    """Calls `write(minutes)` at each of the marks, and stops counting meanwhile."""

    def __init__(self, marks: list[float], write: Callable[[float], None]) -> None:
        self.marks, self.write, self.start = marks, write, time.perf_counter()

    def tick(self) -> bool:
        """To be called after every step; whether the last mark is reached."""
        while self.marks and time.perf_counter() - self.start >= 60 * self.marks[0]:
            began = time.perf_counter()
            self.write(self.marks.pop(0))
            self.start += time.perf_counter() - began
        return not self.marks


def to_images(x: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """[N, C, H, W] in [0, 1] as uint8 of the shape [N, H, W, C]; resized and made gray where the peer
    cannot."""
    height, width, channels = shape
    if x.shape[-2:] != (height, width):
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
    if channels == 1:
        x = x.mean(1, keepdim=True)
    return (x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def stub_torchvision() -> None:
    """Operators that torchvision describes on import; its compiled part needs the CUDA build of torch."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    stub_torchvision.library = library  # type: ignore[attr-defined]


def pythae(
    folder: Path, held_out: Tensor, out: Callable[[float], Path], marks: list[float]
) -> dict[str, Any]:
    """The default VAE: a dense network and 16 latents; new images from the normal prior."""
    from pythae.models import VAE, VAEConfig
    from pythae.samplers import NormalSampler
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    x = torch.from_numpy(np.load(folder / "train.npy")).permute(0, 3, 1, 2).float() / 255
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    model = VAE(VAEConfig(input_dim=tuple(x.shape[1:]), latent_dim=16))
    trainer: Any = None

    def write(minutes: float) -> None:
        model.eval()
        with torch.no_grad():
            new = NormalSampler(model).sample(NEW_IMAGES["pythae"])
            seen = torch.cat([model.reconstruct(part) for part in held_out.split(64)])
        save(out(minutes), held_out, new, seen)
        model.train()

    clock = Clock(marks, write)

    class Stop(Exception):
        pass

    class Watch(TrainingCallback):  # type: ignore[misc]
        def on_train_step_end(self, training_config: Any, **kwargs: Any) -> None:
            if clock.tick():
                raise Stop

    from pythae.data.datasets import BaseDataset

    data = [BaseDataset(part, torch.ones(len(part))) for part in (x[len(x) // 10 :], x[: len(x) // 10])]
    config = BaseTrainerConfig(output_dir=str(out(0)), num_epochs=1_000_000, no_cuda=True)
    trainer = BaseTrainer(model, data[0], data[1], config, callbacks=[Watch()])
    with suppress(Stop):
        trainer.train()
    return {"parameters": sum(p.numel() for p in model.parameters())}


def diffusion(
    folder: Path, held_out: Tensor, out: Callable[[float], Path], marks: list[float]
) -> dict[str, Any]:
    """A U-Net with 32 channels (README: 64); batches of 32; 20 DDIM steps."""
    stub_torchvision()
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

    size = held_out.shape[-1]
    size += -size % 8  # 28 to 32: the U-Net halves three times
    model = Unet(dim=32, dim_mults=(1, 2, 4, 8), flash_attn=False)
    process = GaussianDiffusion(model, image_size=size, timesteps=1000, sampling_timesteps=20)
    trainer = Trainer(
        process,
        str(folder / "train"),
        train_batch_size=32,
        train_lr=8e-5,
        calculate_fid=False,
        augment_horizontal_flip=False,
        convert_image_to="RGB",
        results_folder=str(out(0)),
        save_and_sample_every=10**9,
    )

    def write(minutes: float) -> None:
        trainer.ema.ema_model.eval()
        with torch.inference_mode():
            parts = [trainer.ema.ema_model.sample(batch_size=64) for _ in range(NEW_IMAGES[name] // 64)]
        save(out(minutes), held_out, torch.cat(parts))

    name = "denoising-diffusion-pytorch"
    clock = Clock(marks, write)
    update = trainer.ema.update

    def update_and_tick() -> None:
        update()
        if clock.tick():
            trainer.train_num_steps = 0

    trainer.ema.update = update_and_tick
    trainer.train()
    return {"parameters": sum(p.numel() for p in model.parameters()), "steps": trainer.step}


def gan(folder: Path, held_out: Tensor, out: Callable[[float], Path], marks: list[float]) -> dict[str, Any]:
    """The command line's settings: batches of 10, gradients of 4 added. It asks for CUDA; here its source
    runs with that replaced by the processor."""
    stub_torchvision()
    spec = importlib.util.find_spec("lightweight_gan")
    assert spec is not None and spec.submodule_search_locations
    package = types.ModuleType("lightweight_gan")  # without running its __init__, which asks for CUDA too
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["lightweight_gan"] = package
    path = Path(package.__path__[0]) / "lightweight_gan.py"
    source = path.read_text(encoding="utf-8")
    for before, after in {
        "assert torch.cuda.is_available()": "assert True",
        "torch.device(f'cuda:{self.rank}')": "torch.device('cpu')",
        ".cuda(self.rank)": "",
        "self.cuda(rank)": "self.cpu()",
        "pin_memory = True": "pin_memory = False",
    }.items():
        source = source.replace(before, after)
    module: Any = types.ModuleType("lightweight_gan_cpu")
    sys.modules["lightweight_gan_cpu"] = module
    exec(compile(source, str(path), "exec"), module.__dict__)
    size = 32 if held_out.shape[-1] <= 32 else 64
    trainer = module.Trainer(
        name="gan",
        base_dir=str(out(0)),
        image_size=size,
        batch_size=10,
        gradient_accumulate_every=4,
        attn_res_layers=[32],
        disc_output_size=1,
        num_workers=1,
        use_aim=False,
        save_every=10**9,
        evaluate_every=10**9,
    )
    trainer.set_data_src(str(folder / "train"))
    trainer.init_GAN()
    trainer.steps = 1  # at step 0 it saves and evaluates

    def write(minutes: float) -> None:
        trainer.GAN.eval()
        noise = torch.randn(NEW_IMAGES["lightweight-gan"], trainer.latent_dim)
        with torch.no_grad():
            new = torch.cat([trainer.generate_(trainer.GAN.GE, part) for part in noise.split(50)])
        save(out(minutes), held_out, new)
        trainer.GAN.train()

    clock = Clock(marks, write)
    for _ in itertools.count():
        trainer.train()
        if clock.tick():
            break
    return {"parameters": sum(p.numel() for p in trainer.GAN.G.parameters()), "steps": trainer.steps}


def save(folder: Path, held_out: Tensor, new: Tensor, reconstructions: Tensor | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shape = (*held_out.shape[-2:], held_out.shape[1])
    if reconstructions is not None:
        np.save(folder / "reconstructions.npy", to_images(reconstructions, shape))
    np.save(folder / "new.npy", to_images(new, shape))


CONTESTANTS = {"pythae": pythae, "denoising-diffusion-pytorch": diffusion, "lightweight-gan": gan}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("marks", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    (options.out / "0").mkdir(parents=True, exist_ok=True)  # what the peer itself writes
    held_out = torch.from_numpy(np.load(options.folder / "held_out.npy")).permute(0, 3, 1, 2).float() / 255
    info = CONTESTANTS[options.contestant](
        options.folder, held_out, lambda minutes: options.out / f"{minutes:g}", sorted(options.marks)
    )
    (options.out / "info.json").write_text(json.dumps(info))


if __name__ == "__main__":
    main()
