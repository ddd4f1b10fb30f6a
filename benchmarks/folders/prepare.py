"""Make the five folders of the comparison: training images as PNG files, held-out images as an array.

    python benchmarks/folders/prepare.py SOURCES FOLDERS      # SOURCES/emoji, SOURCES/clipart, ...

Writes FOLDERS/NAME/train/CLASS/000001.png, which every contestant trains on (as an array in train.npy), and
FOLDERS/NAME/held_out.npy, uint8 [N, H, W, C], which none sees. A fifth of the images is held out, chosen by
the hash of each file, so that identical files are on the same side; of CIFAR-10 and Fashion-MNIST it is their
test images. Transparent pixels are composited over white, and images cropped to a square.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from vaekit.config.data import DataConfig
from vaekit.data.packs.pack import open_pack

SIZES = {"emoji": 64, "clipart": 64, "photos": 64, "cifar10": 32, "fashion-mnist": 28}
MAX_HELD_OUT = 2000
"""Held-out images that are kept; each contestant is compared with a part of them."""


def prepare(source: Path, folder: Path, size: int) -> None:
    if source.name == "cifar10":
        source = source / "cifar10.npz"
    pack = open_pack(source, DataConfig(size=str(size), validation="0.2"))
    held_out = "test" if pack.count("test") else "validation"
    train = np.arange(pack.splits["train"].start, pack.splits["train"].stop)
    if held_out == "test":  # what would have been held out of the training images is trained on too
        validation = pack.splits["validation"]
        train = np.concatenate([train, np.arange(validation.start, validation.stop)])
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for number, row in enumerate(train):
        label = pack.labels[row]
        parent = partial / "train" / (pack.classes[label].replace("/", "-") if label >= 0 else "")
        parent.mkdir(parents=True, exist_ok=True)
        pixels = pack.images[row]
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(parent / f"{number:06}.png")
    rows = np.random.default_rng(0).permutation(pack.count(held_out))[:MAX_HELD_OUT]
    np.save(partial / "train.npy", pack.images[train])
    np.save(partial / "held_out.npy", pack.images[rows + pack.splits[held_out].start])
    partial.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path)
    parser.add_argument("folders", type=Path)
    options = parser.parse_args()
    for name, size in SIZES.items():
        folder = options.folders / name
        if not folder.exists():
            prepare(options.sources / name, folder, size)
        held_out = np.load(folder / "held_out.npy", mmap_mode="r")
        print(f"{name}: {len(list(folder.rglob('*.png'))):,} training images, {held_out.shape} held out")


if __name__ == "__main__":
    main()
