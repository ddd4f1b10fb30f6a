"""Pack JPEGs of 800x600 at 64x64: vaekit against plain Pillow (open, convert, resize) in as many processes.

    python benchmarks/ingest.py [--images 1000] [--rounds 5]

Both decode the same files in turn, and starting the processes counts for both.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from photos import photo
from vaekit.bench.workloads import write_jpegs
from vaekit.config.data import DataConfig
from vaekit.data.decoding.pool import cores
from vaekit.data.packs.cache import clear_cache
from vaekit.data.packs.pack import open_pack

SIZE = 64
BARE = "import sys, vaekit.data.loader; from vaekit.config.data import DataConfig\n"
BARE += "from vaekit.data.packs.pack import open_pack"
SECOND = BARE + "\nopen_pack(sys.argv[1], DataConfig(size='64'))"


def decode_plainly(path: str) -> NDArray[np.uint8]:
    """Decode at full size, then resize with the same filter and centre crop."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS, (100, 0, 700, 600))
        return np.asarray(small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
        photos = Path(scratch) / "photos"
        photos.mkdir()
        fork = get_context("fork")  # the fastest to start
        write_jpegs(photos, options.images, photo)
        files = sorted(map(str, photos.iterdir()))
        size = sum(Path(file).stat().st_size for file in files) / len(files)
        print(
            f"{len(files)} JPEGs of 800x600, {size / 1e3:.0f} kB each, to {SIZE}x{SIZE}, {cores()} processes"
        )
        ours, theirs = [], []
        for _ in range(options.rounds):
            clear_cache()
            start = time.perf_counter()
            pack = open_pack(photos, DataConfig(size=str(SIZE)), quiet=True)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            with fork.Pool(cores()) as pool:
                plain = np.stack(pool.map(decode_plainly, files, chunksize=8))
            theirs.append(time.perf_counter() - start)
        rows = [int(Path(path).stem) for path in pack.paths()]
        difference = np.abs(pack.images.astype(np.int16) - plain[rows]).mean()
        seconds, pillow_seconds = statistics.median(ours), statistics.median(theirs)
        print(f"vaekit           {seconds:6.2f} s  {len(files) / seconds:6.0f} images/s")
        print(f"plain Pillow     {pillow_seconds:6.2f} s  {len(files) / pillow_seconds:6.0f} images/s")
        print(f"ratio            {pillow_seconds / seconds:6.2f}    (target: at least 3)")
        print(f"mean difference  {difference:6.2f} levels (target: below 0.5)")
        bare, second = ([timed(code, photos) for _ in range(options.rounds)] for code in (BARE, SECOND))
        extra = statistics.median(second) - statistics.median(bare)
        print(f"second run       {extra:6.3f} s more than starting Python and importing (target: below 1)")


def timed(code: str, photos: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(photos)], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
