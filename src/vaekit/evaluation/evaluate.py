"""Everything that is measured of a trained model, in one dictionary: the content of evaluation.json."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vaekit.data.packs.pack import Pack
from vaekit.errors import UserError
from vaekit.evaluation.diagnosis import DiagnosisInput, diagnose
from vaekit.evaluation.features import Extractor, extractor
from vaekit.evaluation.fidelity import compare, difference
from vaekit.evaluation.likelihood import active_units, evaluate_likelihood
from vaekit.evaluation.memorization import Nearest, duplicated, memorization, nearest
from vaekit.evaluation.reconstruction import reconstruction
from vaekit.latents.fit_prior import encodings
from vaekit.latents.sampling import decode_images, draw_latents, to_uint8
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.registry import provides
from vaekit.models.vae import VAE
from vaekit.plots import grids
from vaekit.runs.commands import first_valid, resume_command_for, train_command
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import class_numbers, held_out_rows, is_training_pack, training_pack
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import read_config, read_dataset, write_json
from vaekit.runs.metrics import read_metrics
from vaekit.runs.outputs import require_writable
from vaekit.utils.logging import console_logging, log, progress

DEFAULT_NEW_IMAGES = 1000
"""New images that are compared with as many held-out ones, where nothing else is asked for."""


MIN_NEW_IMAGES = 50
"""The least that sets of images are compared by."""


NEW_IMAGES = "new images"


MODEL_PRIOR = "of the model's own prior"


OTHER_HELD_OUT = "other held-out images"
"""What a perfect model reaches."""


RECONSTRUCTED = "the same through the model"
"""What this model does under a right prior: its decoder at draws of q(z | x)."""


MAX_DUPLICATE_FILES = 100
"""Duplicates whose files are named, at most."""


NEAREST_PAIRS = 16
"""New images that are shown beside their nearest training image."""


RECONSTRUCTED_TRAINING_IMAGES = 1000
"""Training images, and held-out ones, whose reconstructions tell what was learned by heart."""


@dataclass(frozen=True, eq=False)
class EvalContext:
    """A model, and the images to judge it by."""

    model: LoadedModel
    held_out: ImageSet
    training: ImageSet | None
    """None where the training images are not at hand."""
    seed: int
    compared: int = DEFAULT_NEW_IMAGES
    """New images that are compared with as many held-out ones, at most."""


def evaluate_model(
    model: LoadedModel, data: Any, samples: int, compared: int, seed: int, quiet: bool
) -> dict[str, Any]:
    """Measure a model, diagnose it, and write evaluation.json: see `Trained.evaluate`."""
    started = time.perf_counter()
    require_writable(model.run)
    pack, split, rows = held_out_rows(model, data, quiet)
    images = ImageSet(pack, rows, class_numbers(model, pack))
    own = is_training_pack(model, pack)
    training = replace(images, rows=_training_rows(pack)) if own else training_images(model, quiet)
    context = EvalContext(model, images, training, seed, compared)
    with console_logging(quiet):
        network, note = extractor() if len(rows) >= 2 * MIN_NEW_IMAGES else (None, "")
        if note:
            log.info(note[0].upper() + note[1:])
        with progress(_work(context, network), "likelihood", quiet=quiet) as advance:
            result, nearest_ones = evaluate(context, samples, network, advance)
    result = {"data": pack.source, "side": split, "own": own, **result}
    if nearest_ones is None:
        model.run.nearest.unlink(missing_ok=True)
    else:
        grids.write(model.run.nearest, nearest_ones)
    record = {
        "format": 1,
        "weights": model.weights_hash,
        "seed": seed,
        **result,
        "diagnosis": diagnosis(model, result, len(context.training or ())),
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_json(model.run.evaluation, record)
    return record


def training_images(model: LoadedModel, quiet: bool) -> ImageSet | None:
    """The training side of a model's own data; None where they are not there as they were."""
    try:
        pack = training_pack(model, quiet)
    except UserError:
        return None
    return ImageSet(pack, _training_rows(pack), class_numbers(model, pack))


def _training_rows(pack: Pack) -> NDArray[np.int64]:
    rows = pack.splits["train"]
    return np.arange(rows.start, rows.stop)


def diagnosis(model: LoadedModel, result: Mapping[str, Any], training_count: int) -> list[dict[str, str]]:
    """What is wrong with a model, by what was measured of it and by the course of its training."""
    rows = read_metrics(model.run)
    final_rows = [row for row in rows if row["epoch"] > model.objective.schedule_end]
    losses = [row["val_loss"] for row in rows]
    dataset = read_dataset(model.run)

    def retrain_command(*choices: Mapping[str, Any]) -> str:
        return train_command(read_config(model.run), dataset, first_valid(model.config, choices, training_count))

    def resume_command(epochs: int) -> str:
        return resume_command_for(model.config, read_config(model.run), dataset, str(model.run.folder), epochs)

    loss_drop = losses[0] - min(losses) if losses else 0.0
    steps = int(rows[-1]["step"]) if rows else 0
    return diagnose(
        DiagnosisInput(
            model.config,
            result,
            final_rows,
            loss_drop,
            steps,
            training_count,
            str(model.run.folder),
            retrain_command,
            resume_command,
        )
    )


Advance = Callable[[int, str], None]
"""Called with the number of images done and a word for what is done with them."""


def evaluate(
    context: EvalContext, samples: int, extractor: Extractor | None, advance: Advance
) -> tuple[dict[str, Any], Image.Image | None]:
    """All that can be measured; what cannot is None, and `why` says why not. And a picture of the new images that are
    nearest to training images, where these are at hand.

    Args:
        case: the model, and the images to judge it by.
        samples: importance samples of every held-out image.
        extractor: of the features in which sets of images are compared; without one they are not.
        advance: of a progress bar.
    """
    vae, device = context.model.vae, context.model.device
    why: dict[str, str] = {}
    result: dict[str, Any] = {"images": len(context.held_out)}
    if "density_at_sample" in provides(vae.posterior):
        result |= evaluate_likelihood(
            vae,
            context.held_out.batches(device),
            samples,
            context.seed,
            lambda count: advance(count, f"likelihood, {samples:,} samples"),
        )
    else:
        result |= {"samples": samples, "nll": None, **_means(context)}
        why["nll"] = "the posterior is a single point without density (--posterior.kind gaussian has one)"
    advance(0, "reconstructions")
    result["reconstructions"] = reconstruction(vae, context.held_out.batches(device))
    result["learned"] = None
    if context.training is not None:
        seen = reconstruction(vae, context.training.spread(RECONSTRUCTED_TRAINING_IMAGES).batches(device))
        result["learned"] = {"images": min(RECONSTRUCTED_TRAINING_IMAGES, len(context.training)), **seen}
    result["aggregate"] = _aggregate(context, result.get("kl"))
    new = new_images(context, _count(context))
    result["memorisation"] = nearest_ones = None
    if context.training is not None:
        drawn, held_out = nearest_training_images(context, new[NEW_IMAGES], advance)
        result["memorisation"] = memorization(drawn, held_out) | {"duplicate_files": _duplicates(context, held_out)}
        nearest_ones = closest(new[NEW_IMAGES], context.training, drawn)
    result["fidelity"] = None
    if len(context.held_out) < 2 * MIN_NEW_IMAGES:
        why["fidelity"] = (
            f"{len(context.held_out)} held-out images are too few to compare sets, which takes {2 * MIN_NEW_IMAGES}: "
            "--data names a folder of more"
        )
    elif extractor is None:
        why["fidelity"] = "there is no network to take features from; `vaekit doctor` says what would bring one"
    else:
        result["fidelity"] = _fidelity(context, new, extractor, advance)
    return {**result, "why": why}, nearest_ones


def new_images(context: EvalContext, count: int) -> dict[str, UInt8[np.ndarray, "N H W C"]]:
    """`new images` as `generate` draws them; where that is from a fitted prior, those of the model's own beside them.

    A conditional model draws the classes of held-out images.
    """
    labels = context.held_out.spread(2 * count).some(slice(0, 2 * count, 2)).labels
    vae, fitted = context.model.vae, context.model.fitted_prior
    y = None if labels is None else labels.to(context.model.device)
    priors: dict[str, VAE | FittedPrior] = (
        {NEW_IMAGES: vae} if fitted is None else {NEW_IMAGES: fitted, MODEL_PRIOR: vae}
    )
    drawn = {}
    for name, prior in priors.items():
        z = draw_latents(prior, count, context.seed, y)
        drawn[name] = to_uint8(decode_images(vae, z, y)).numpy()
    return drawn


def nearest_training_images(
    context: EvalContext, new: UInt8[np.ndarray, "N H W C"], advance: Advance = lambda *_: None
) -> tuple[Nearest, Nearest]:
    """The nearest training images of new images, and of as many held-out ones."""
    assert context.training is not None
    count = len(new)
    both = np.concatenate([new, context.held_out.spread(count).pixels])
    flat = torch.from_numpy(both).flatten(1).float() / 255

    training = context.training

    def parts() -> Iterator[Tensor]:
        for start in range(0, len(training), 1024):
            yield torch.from_numpy(training.some(slice(start, start + 1024)).pixels).flatten(1).float() / 255

    neighbors = nearest(flat, parts(), lambda n: advance(n, "nearest training images"))
    one, other = (
        Nearest(neighbors.row[part], neighbors.distance[part], neighbors.relative[part])
        for part in (slice(count), slice(count, None))
    )
    return one, other


def _duplicates(context: EvalContext, held_out: Nearest) -> list[list[str]]:
    """The held-out images that stand among the training images, the file of each beside that of its double."""
    assert context.training is not None
    rows = duplicated(held_out).nonzero()[:MAX_DUPLICATE_FILES, 0].numpy()
    if not len(rows):
        return []
    one, other = context.held_out.spread(len(held_out.row)), context.training
    names = one.pack.paths(), other.pack.paths()
    doubles = other.rows[held_out.row.numpy()[rows]]
    return [[names[0][row], names[1][double]] for row, double in zip(one.rows[rows], doubles, strict=True)]


def closest(new: UInt8[np.ndarray, "N H W C"], training: ImageSet, neighbors: Nearest) -> Image.Image:
    """The new images that are nearest to a training image, relative to others, each above that image."""
    rows = neighbors.relative.argsort(stable=True)[:NEAREST_PAIRS].numpy()
    training_pixels = replace(training, rows=training.rows[neighbors.row[rows].numpy()]).pixels
    labels = [f"{distance:.1f}" for distance in neighbors.distance[rows].tolist()]
    title = "New images above, their nearest training images below; levels between them"
    return grids.pairs(new[rows], training_pixels, 8, labels, title)


@torch.no_grad()
def _means(context: EvalContext) -> dict[str, Any]:
    """What the latents of a model without density carry."""
    vae, images = context.model.vae, context.held_out.batches(context.model.device)
    means = torch.cat([vae.posterior_of(x, y).mean.cpu().double() for x, y in images])
    return {"active_units": active_units(means), "latents": vae.latents, "kl_per_latent": None}


@torch.no_grad()
def _aggregate(context: EvalContext, kl: float | None) -> dict[str, Any] | None:
    """What the model's own prior loses on held-out encodings against the fitted one, nats per image."""
    vae, fitted, device = context.model.vae, context.model.fitted_prior, context.model.device
    if fitted is None:
        return None
    drawn = encodings(vae, context.held_out.batches(device), "judged", context.seed)
    z, y = drawn.z.to(device), drawn.y.to(device)
    labels = y if vae.classes else None
    gain = (fitted.log_prior(z, labels) - vae.log_prior(z, labels)).cpu().double()
    mean = gain.mean().item()
    return {
        "prior": fitted.name,
        "gain": mean,
        "gain_standard_error": (gain.std() / math.sqrt(len(gain))).item() if len(gain) > 1 else None,
        "mutual_information_at_most": None if kl is None else kl - mean,
    }


def _fidelity(
    context: EvalContext, new: dict[str, NDArray[np.uint8]], extractor: Extractor, advance: Advance
) -> dict[str, Any]:
    count = len(new[NEW_IMAGES])
    both = context.held_out.spread(2 * count)
    held_out, others = (both.some(slice(start, None, 2)) for start in (0, 1))
    sets = {**new, OTHER_HELD_OUT: others.pixels, RECONSTRUCTED: _through(context, others)}
    if context.training is not None and len(context.training) >= count:
        sets["training images"] = context.training.spread(count).pixels
    shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(context.seed % 2**63))

    def features(images: NDArray[np.uint8]) -> Tensor:
        return extractor(images, lambda n: advance(n, "features"))[shuffle]

    real = features(held_out.pixels)
    seen = {name: features(images) for name, images in sets.items()}
    own = seen.get(MODEL_PRIOR)
    return {
        "images": count,
        "extractor": extractor.name,
        "resize": extractor.resize,
        "standard": extractor.standard,
        "against": f"{count} held-out images",
        "sets": {name: compare(real, images) for name, images in seen.items()},
        "above_own_prior": None if own is None else difference(real, seen[NEW_IMAGES], own),
    }


@torch.no_grad()
def _through(context: EvalContext, images: ImageSet) -> UInt8[np.ndarray, "N H W C"]:
    """Each image encoded, one draw of its q(z | x) decoded."""
    device = context.model.device
    z = encodings(context.model.vae, images.batches(device), "through", context.seed).z.to(device)
    y = None if images.labels is None else images.labels.to(device)
    return to_uint8(decode_images(context.model.vae, z, y)).numpy()


def _count(context: EvalContext) -> int:
    """New images to draw: half of the held-out ones are compared with them, half with each other."""
    return min(context.compared, max(1, len(context.held_out) // 2))


def _work(context: EvalContext, extractor: Extractor | None) -> int:
    """What a progress bar counts to, in images."""
    count = _count(context)
    training = len(context.training) if context.training is not None else 0
    sets = 3 + (context.model.fitted_prior is not None) + (context.training is not None)
    return len(context.held_out) + training + (sets + 1) * count * (extractor is not None)
