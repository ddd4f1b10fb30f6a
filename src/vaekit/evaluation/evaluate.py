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
from vaekit.runs.commands import first_valid, resume_command, train_command
from vaekit.runs.image_set import ImageSet
from vaekit.runs.inputs import class_numbers, held_out_rows, is_training_pack, training_pack
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import read_dataset_summary, read_metadata, write_json
from vaekit.runs.metrics import read_metrics
from vaekit.runs.outputs import require_writable
from vaekit.utils.logging import console_logging, log, progress

COMPARED, FEWEST = 1000, 50
"""New images that are compared with as many held-out ones: where nothing else is asked for, and at the least."""


NEW, OWN = "new images", "of the model's own prior"


OTHERS, THROUGH = "other held-out images", "the same through the model"
"""What a perfect model reaches; and what this one does under a right prior: its decoder at draws of q(z | x)."""


NAMED = 100
"""Duplicates whose files are named, at most."""


PAIRS = 16
"""New images that are shown beside their nearest training image."""


LOOKED_AT = 1000
"""Training images, and held-out ones, whose reconstructions tell what was learned by heart."""


@dataclass(frozen=True, eq=False)
class EvalContext:
    """A model, and the images to judge it by."""

    model: LoadedModel
    held_out: ImageSet
    training: ImageSet | None
    """None where the training images are not at hand."""
    seed: int
    compared: int = COMPARED
    """New images that are compared with as many held-out ones, at most."""


def evaluation(model: LoadedModel, data: Any, samples: int, compared: int, seed: int, quiet: bool) -> dict[str, Any]:
    """Measure a model, diagnose it, and write evaluation.json: see `Trained.evaluate`."""
    begun = time.perf_counter()
    require_writable(model.run)
    pack, split, rows = held_out_rows(model, data, quiet)
    images = ImageSet(pack, rows, class_numbers(model, pack))
    own = is_training_pack(model, pack)
    training = replace(images, rows=_training_rows(pack)) if own else training_images(model, quiet)
    context = EvalContext(model, images, training, seed, compared)
    with console_logging(quiet):
        network, said = extractor() if len(rows) >= 2 * FEWEST else (None, "")
        if said:
            log.info(said[0].upper() + said[1:])
        with progress(_work(context, network), "likelihood", quiet=quiet) as advance:
            found, nearest_ones = evaluate(context, samples, network, advance)
    found = {"data": pack.source, "side": split, "own": own, **found}
    if nearest_ones is None:
        model.run.nearest.unlink(missing_ok=True)
    else:
        grids.write(model.run.nearest, nearest_ones)
    record = {
        "format": 1,
        "weights": model.weights_hash,
        "seed": seed,
        **found,
        "diagnosis": diagnosis(model, found, len(context.training or ())),
        "seconds": round(time.perf_counter() - begun, 1),
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


def diagnosis(model: LoadedModel, found: Mapping[str, Any], training_count: int) -> list[dict[str, str]]:
    """What is wrong with a model, by what was measured of it and by the course of its training."""
    rows = read_metrics(model.run)
    settled = [row for row in rows if row["epoch"] > model.objective.schedule_end]
    losses = [row["val_loss"] for row in rows]
    metadata, dataset = read_metadata(model.run), read_dataset_summary(model.run)

    def again(*choices: Mapping[str, Any]) -> str:
        return train_command(metadata, dataset, first_valid(model.config, choices, training_count))

    def go_on(epochs: int) -> str:
        return resume_command(metadata, dataset, model.run.folder, epochs)

    loss_drop = losses[0] - min(losses) if losses else 0.0
    steps = int(rows[-1]["step"]) if rows else 0
    return diagnose(
        DiagnosisInput(
            model.config, found, settled, loss_drop, steps, training_count, str(model.run.folder), again, go_on
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
    found: dict[str, Any] = {"images": len(context.held_out)}
    if "density_at_sample" in provides(vae.posterior):
        found |= evaluate_likelihood(
            vae,
            context.held_out.batches(device),
            samples,
            context.seed,
            lambda count: advance(count, f"likelihood, {samples:,} samples"),
        )
    else:
        found |= {"samples": samples, "nll": None, **_means(context)}
        why["nll"] = "the posterior is a single point without density (--posterior.kind gaussian has one)"
    advance(0, "reconstructions")
    found["reconstructions"] = reconstruction(vae, context.held_out.batches(device))
    found["learned"] = None
    if context.training is not None:
        seen = reconstruction(vae, context.training.spread(LOOKED_AT).batches(device))
        found["learned"] = {"images": min(LOOKED_AT, len(context.training)), **seen}
    found["aggregate"] = _aggregate(context, found.get("kl"))
    new = new_images(context, _count(context))
    found["memorisation"] = nearest_ones = None
    if context.training is not None:
        drawn, ours = neighbours(context, new[NEW], advance)
        found["memorisation"] = memorization(drawn, ours) | {"duplicate_files": _duplicates(context, ours)}
        nearest_ones = closest(new[NEW], context.training, drawn)
    found["fidelity"] = None
    if len(context.held_out) < 2 * FEWEST:
        why["fidelity"] = (
            f"{len(context.held_out)} held-out images are too few to compare sets, which takes {2 * FEWEST}: "
            "--data names a folder of more"
        )
    elif extractor is None:
        why["fidelity"] = "there is no network to take features from; `vaekit doctor` says what would bring one"
    else:
        found["fidelity"] = _fidelity(context, new, extractor, advance)
    return {**found, "why": why}, nearest_ones


def new_images(context: EvalContext, count: int) -> dict[str, UInt8[np.ndarray, "N H W C"]]:
    """`new images` as `generate` draws them; where that is from a fitted prior, those of the model's own beside them.

    A conditional model draws the classes of held-out images.
    """
    labels = context.held_out.spread(2 * count).some(slice(0, 2 * count, 2)).labels
    vae, fitted = context.model.vae, context.model.fitted_prior
    y = None if labels is None else labels.to(context.model.device)
    priors: dict[str, VAE | FittedPrior] = {NEW: vae} if fitted is None else {NEW: fitted, OWN: vae}
    drawn = {}
    for name, prior in priors.items():
        z = draw_latents(prior, count, context.seed, y)
        drawn[name] = to_uint8(decode_images(vae, z, y)).numpy()
    return drawn


def neighbours(
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

    found = nearest(flat, parts(), lambda n: advance(n, "nearest training images"))
    one, other = (
        Nearest(found.row[part], found.distance[part], found.relative[part])
        for part in (slice(count), slice(count, None))
    )
    return one, other


def _duplicates(context: EvalContext, ours: Nearest) -> list[list[str]]:
    """The held-out images that stand among the training images, the file of each beside that of its double."""
    assert context.training is not None
    rows = duplicated(ours).nonzero()[:NAMED, 0].numpy()
    if not len(rows):
        return []
    one, other = context.held_out.spread(len(ours.row)), context.training
    names = one.pack.paths(), other.pack.paths()
    doubles = other.rows[ours.row.numpy()[rows]]
    return [[names[0][row], names[1][double]] for row, double in zip(one.rows[rows], doubles, strict=True)]


def closest(new: UInt8[np.ndarray, "N H W C"], training: ImageSet, found: Nearest) -> Image.Image:
    """The new images that are nearest to a training image, relative to others, each above that image."""
    rows = found.relative.argsort(stable=True)[:PAIRS].numpy()
    beside = replace(training, rows=training.rows[found.row[rows].numpy()]).pixels
    labels = [f"{distance:.1f}" for distance in found.distance[rows].tolist()]
    title = "New images above, their nearest training images below; levels between them"
    return grids.pairs(new[rows], beside, 8, labels, title)


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
    count = len(new[NEW])
    both = context.held_out.spread(2 * count)
    held_out, others = (both.some(slice(start, None, 2)) for start in (0, 1))
    sets = {**new, OTHERS: others.pixels, THROUGH: _through(context, others)}
    if context.training is not None and len(context.training) >= count:
        sets["training images"] = context.training.spread(count).pixels
    shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(context.seed % 2**63))

    def features(images: NDArray[np.uint8]) -> Tensor:
        return extractor(images, lambda n: advance(n, "features"))[shuffle]

    real = features(held_out.pixels)
    seen = {name: features(images) for name, images in sets.items()}
    own = seen.get(OWN)
    return {
        "images": count,
        "extractor": extractor.name,
        "resize": extractor.resize,
        "standard": extractor.standard,
        "against": f"{count} held-out images",
        "sets": {name: compare(real, images) for name, images in seen.items()},
        "above_own_prior": None if own is None else difference(real, seen[NEW], own),
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
