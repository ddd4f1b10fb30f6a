"""What follows the last epoch, in the units of the constants of vaekit.training.monitor, on an idle machine.

python benchmarks/time_left.py RUN    # a run whose training images are where they were
"""

import sys
import time
from collections.abc import Callable

import vaekit
from vaekit.data.loader import ImageLoader
from vaekit.evaluation.context import QUICK_IMAGES
from vaekit.latents.fit_prior import encodings
from vaekit.latents.sampling import CHUNK
from vaekit.runs.inputs import training_pack
from vaekit.training.monitor import PRIOR_IMAGES


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def main(run: str) -> None:
    model = vaekit.load(run)
    per_image = 1 / float(model.history["images_per_second"].median())
    pack, settings = training_pack(model.loaded, quiet=True), model.config
    loader = ImageLoader(pack, settings.data, CHUNK, settings.training.seed, model.device)
    batches = loader.split("train", PRIOR_IMAGES, CHUNK)
    encoding = seconds(lambda: encodings(model.model, batches, "train", 0))
    images = min(PRIOR_IMAGES, loader.source.count("train"))
    print(f"PRIOR_SHARE    {encoding / images / per_image:.2f}")
    print(f"PRIOR_SECONDS  {seconds(lambda: model.fit_prior(quiet=True)) - encoding:.1f}")
    reported = min(QUICK_IMAGES, pack.count("test") or pack.count("validation"))
    print(f"REPORT_SHARE   {seconds(lambda: model.report(quiet=True)) / per_image / reported:,.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
