"""Everything that is measured of a trained model, in one dictionary: the content of evaluation.json."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from vaekit.judging.features import Extractor
from vaekit.judging.fidelity import compare
from vaekit.judging.likelihood import BATCH, judge
from vaekit.judging.memorisation import Nearest, memorisation, nearest
from vaekit.judging.reconstruction import reconstruction
from vaekit.latent_prior import encodings
from vaekit.model import VAE
from vaekit.parts.fitted import FittedPrior
from vaekit.parts.types import Labels, offers
from vaekit.sampling import decode_means, draw_latents, to_uint8

COMPARED, FEWEST = 1000, 50
"""New images that are compared with as many held-out ones, at most and at least."""
LOOKED_AT = 1000
"""Training images, and held-out ones, whose reconstructions tell what was learned by heart."""


@dataclass(frozen=True)
class Images:
    """uint8 pixels and, for a conditional model, the numbers of its classes."""

    pixels: UInt8[np.ndarray, "N H W C"]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def spread(self, count: int) -> "Images":
        """`count` of them, or all, evenly spread."""
        rows = np.arange(min(count, len(self))) * len(self) // max(1, min(count, len(self)))
        return Images(self.pixels[rows], None if self.labels is None else self.labels[rows])

    def batches(self, device: torch.device) -> Iterator[tuple[Float[Tensor, "B C H W"], Labels | None]]:
        """From 0 to 1, in the memory order that all users of a model share."""
        for start in range(0, len(self), BATCH):
            part = slice(start, start + BATCH)
            x = torch.from_numpy(np.array(self.pixels[part])).to(device).permute(0, 3, 1, 2).float()
            y = None if self.labels is None else torch.from_numpy(np.array(self.labels[part])).to(device)
            yield x.clone(memory_format=torch.contiguous_format) / 255, y


@dataclass(frozen=True)
class Subject:
    """A model and the images to judge it by."""

    model: VAE
    fitted: FittedPrior | None
    held_out: Images
    training: Images | None
    """None where the training images are not at hand."""
    seed: int

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


Advance = Callable[[int, str], None]
"""Called with the number of images done and a word for what is done with them."""


def evaluate(subject: Subject, samples: int, extractor: Extractor | None, advance: Advance) -> dict[str, Any]:
    """All that can be measured; what cannot is None, and `why` says why not.

    Args:
        subject: the model, and the images to judge it by.
        samples: importance samples of every held-out image.
        extractor: of the features in which sets of images are compared; without one they are not.
        advance: of a progress bar.
    """
    model, device, why = subject.model, subject.device, dict[str, str]()
    found: dict[str, Any] = {"images": len(subject.held_out)}
    if "density_at_sample" in offers(model.posterior):
        found |= judge(
            model,
            subject.held_out.batches(device),
            samples,
            subject.seed,
            lambda count: advance(count, f"likelihood, {samples:,} samples"),
        )
    else:
        found |= {"samples": samples, "nll": None, **_means(subject)}
        why["nll"] = "the posterior is a single point without density (--posterior.kind gaussian has one)"
    advance(0, "reconstructions")
    found["reconstructions"] = reconstruction(model, subject.held_out.batches(device))
    found["learned"] = None
    if subject.training is not None:
        seen = reconstruction(model, subject.training.spread(LOOKED_AT).batches(device))
        found["learned"] = {"images": min(LOOKED_AT, len(subject.training)), **seen}
    found["aggregate"] = _aggregate(subject, found.get("kl"))
    new = new_images(subject, min(COMPARED, max(1, len(subject.held_out) // 2)))
    found["memorisation"] = None
    if subject.training is not None:
        found["memorisation"] = memorisation(*neighbours(subject, new["new images"], advance))
    found["fidelity"] = None
    if extractor is None:
        why["fidelity"] = "there is no network to take features from"
    elif len(subject.held_out) < 2 * FEWEST:
        why["fidelity"] = (
            f"{len(subject.held_out)} held-out images are too few to compare sets, which takes {2 * FEWEST}"
        )
    else:
        found["fidelity"] = _fidelity(subject, new, extractor, advance)
    return {**found, "why": why}


def new_images(subject: Subject, count: int) -> dict[str, UInt8[np.ndarray, "N H W C"]]:
    """`new images` as `generate` draws them; where that is from a fitted prior, those of the model's own beside them.

    A conditional model draws the classes of held-out images.
    """
    labels = subject.held_out.spread(2 * count).labels
    y = None if labels is None else torch.from_numpy(labels[::2][:count]).to(subject.device)
    priors = {"new images": subject.fitted} | ({} if subject.fitted is None else {"of the model's own prior": None})
    drawn = {}
    for name, fitted in priors.items():
        z = draw_latents(subject.model, count, subject.seed, y, 1.0, fitted)
        drawn[name] = to_uint8(decode_means(subject.model, z, y)).numpy()
    return drawn


def neighbours(
    subject: Subject, new: UInt8[np.ndarray, "N H W C"], advance: Advance = lambda *_: None
) -> tuple[Nearest, Nearest]:
    """The nearest training images of new images, and of as many held-out ones."""
    assert subject.training is not None
    count = len(new)
    both = np.concatenate([new, subject.held_out.spread(count).pixels])
    flat = torch.from_numpy(both).flatten(1).float() / 255

    def training() -> Iterator[Tensor]:
        for start in range(0, len(subject.training or ()), 1024):
            part = np.array(subject.training.pixels[start : start + 1024])  # type: ignore[union-attr]
            yield torch.from_numpy(part).flatten(1).float() / 255

    found = nearest(flat, training(), lambda n: advance(n, "nearest training images"))
    one, other = (
        Nearest(*(t[part] for t in (found.row, found.distance, found.relative)))
        for part in (slice(count), slice(count, None))
    )
    return one, other


@torch.no_grad()
def _means(subject: Subject) -> dict[str, Any]:
    """What the latents of a model without density carry."""
    from vaekit.judging.likelihood import ACTIVE

    model = subject.model
    means = [model.encode(model.observe(x), y).mean.cpu().double() for x, y in subject.held_out.batches(subject.device)]
    variances = torch.cat(means).var(0, correction=0)
    return {"active_units": int((variances > ACTIVE).sum()), "latents": model.latents, "kl_per_latent": None}


@torch.no_grad()
def _aggregate(subject: Subject, kl: float | None) -> dict[str, Any] | None:
    """What the model's own prior loses on held-out encodings against the fitted one, nats per image."""
    if subject.fitted is None:
        return None
    model, device = subject.model, subject.device
    drawn = encodings(model, subject.held_out.batches(device), "judged", subject.seed)
    z, y = drawn.z.to(device), drawn.y.to(device)
    own = model.prior(model.encode, y if model.classes else None).log_prob(z)
    fitted = subject.fitted(y).log_prob(z) if model.classes else subject.fitted.log_prob(z)
    gain = (fitted - own).cpu().double()
    mean = gain.mean().item()
    return {
        "prior": subject.fitted.name,
        "gain": mean,
        "gain_standard_error": (gain.std() / math.sqrt(len(gain))).item() if len(gain) > 1 else None,
        "mutual_information_at_most": None if kl is None else kl - mean,
    }


def _fidelity(
    subject: Subject, new: dict[str, NDArray[np.uint8]], extractor: Extractor, advance: Advance
) -> dict[str, Any]:
    count = len(new["new images"])
    held_out = subject.held_out.spread(2 * count).pixels
    sets = {**new, "other held-out images": held_out[1::2][:count]}
    if subject.training is not None and len(subject.training) >= count:
        sets["training images"] = subject.training.spread(count).pixels
    shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(subject.seed % 2**63))

    def features(images: NDArray[np.uint8]) -> Tensor:
        return extractor(images, lambda n: advance(n, "features"))[shuffle]

    real = features(held_out[::2][:count])
    return {
        "images": count,
        "extractor": extractor.name,
        "resize": extractor.resize,
        "standard": extractor.standard,
        "against": f"{count} held-out images",
        "sets": {name: compare(real, features(images)) for name, images in sets.items()},
    }


def work(subject: Subject, extractor: Extractor | None) -> int:
    """What a progress bar counts to, in images."""
    count = min(COMPARED, max(1, len(subject.held_out) // 2))
    training = len(subject.training) if subject.training is not None else 0
    sets = 2 + (subject.fitted is not None) + (subject.training is not None)
    return len(subject.held_out) + training + (sets + 1) * count * (extractor is not None)
