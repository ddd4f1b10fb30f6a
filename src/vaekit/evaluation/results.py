"""The content of evaluation.json, as typed records."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from vaekit.runs.folder import Run


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


LikelihoodKind = Literal["probability", "density", "cross-entropy"]
"""The kind of p(x | z); under a Bernoulli, gray pixels only have a cross-entropy."""


class EffectiveSampleSize(_Record):
    """Of the importance weights of an image, over all images."""

    mean: float
    median: float
    min: float


class Likelihood(_Record):
    """Nats per image, averaged over images."""

    kind: LikelihoodKind
    nll: float
    """By all importance samples."""
    nll_standard_error: float | None
    """Over images; None for a single one."""
    bits_per_dimension: float | None
    """None unless the likelihood is normalized over 256 levels."""
    bounds: dict[int, float]
    """Of log p(x), by number of importance samples."""
    elbo: float
    reconstruction: float
    """-log p(x | z)."""
    kl: float
    effective_sample_size: EffectiveSampleSize


class LatentUse(_Record):
    """How many latents depend on the image."""

    total: int
    active: int | None
    """None where the images are too few to tell."""
    kl: list[float] | None
    """Of each latent, in nats; None where the KL is not a sum over latents in closed form."""


class Reconstruction(_Record):
    """Averages over images, with their standard errors (None for a single image)."""

    images: int
    mse: float
    """Of pixels from 0 to 1."""
    mse_standard_error: float | None
    psnr: float
    """In decibels."""
    psnr_standard_error: float | None
    ssim: float | None = None
    """None for images smaller than its window."""
    ssim_standard_error: float | None = None
    explained_variance: float | None
    """Share of the pixels' variance over images; None where all images are the same."""


class PriorGap(_Record):
    """The loss of the model's prior against the fitted one on held-out encodings."""

    fitted_prior: str
    gain: float
    """Nats per image that the fitted prior is better by."""
    gain_standard_error: float | None
    mutual_information_bound: float | None
    """Nats that the latents carry of an image, at most."""
    elbo: float | None = None
    """A bound on log p(x) of decoder and fitted prior together, in nats per image."""
    bits_per_dimension: float | None = None
    """The same in bits per dimension, where the likelihood has them."""


class Memorization(_Record):
    """New images, and `images` held-out ones, against their nearest training images.

    Distances are medians over images of root mean squares of pixel differences, in levels of 255.
    """

    images: int
    nearest_to_new: float
    nearest_to_held_out: float
    copied: float | None
    """Share of new images suspiciously near to a training image; None for too few images."""
    copied_expected: float | None = None
    """The share that is expected of a model that copies nothing."""
    copied_by_chance: float | None
    """Exceeded by chance alone once in forty times."""
    duplicates: float
    """Share of held-out images that are also in the training set."""
    duplicate_files: list[tuple[str, str]]
    """Held-out file and training file of some of them."""


class Interval(_Record):
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class SetMetrics(_Record):
    """How close a set of images is to held-out ones."""

    precision: Interval
    recall: Interval
    density: Interval
    coverage: Interval
    kid: Interval
    fid: Interval


SetName = Literal["new", "model_prior", "other_held_out", "reconstructed", "training"]


class Fidelity(_Record):
    """Sets of images, each compared with as many held-out ones by their features."""

    images: int
    extractor: str
    resize: str
    standard: bool
    """Whether the metrics may be compared with published ones."""
    sets: dict[SetName, SetMetrics]
    fitted_prior_gain: SetMetrics | None
    """Of new images over those of the model's own prior; None without a fitted prior."""


class Finding(_Record):
    """One fault: its name, what was measured, and the command that fixes it."""

    name: str
    message: str
    fix: str


class EvaluationResult(_Record):
    """All metrics; those that cannot be computed are None, with the reasons in `unavailable`."""

    model_config = ConfigDict(extra="ignore")  # `kl` and `active_units` are in the file, and no fields

    format: Literal[2] = 2
    weights_hash: str
    """SHA-256 of the weights that were evaluated."""
    data: str
    """Where the images came from."""
    split: str
    """"test", "validation" or "all"."""
    same_dataset: bool
    """Whether the images come from the data set of the run, wherever it lies now."""
    images: int
    samples: int
    """Importance samples per image."""
    seed: int
    likelihood: Likelihood | None
    latents: LatentUse
    reconstruction: Reconstruction
    training_reconstruction: Reconstruction | None
    """Of training images, where they are at hand."""
    prior_gap: PriorGap | None
    memorization: Memorization | None
    fidelity: Fidelity | None
    diagnosis: list[Finding] = []
    unavailable: dict[str, str]
    seconds: float = 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def kl(self) -> float | None:
        """`likelihood.kl`, where format 1 had it; None without a likelihood."""
        return self.likelihood.kl if self.likelihood else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def active_units(self) -> int | None:
        """`latents.active`, where format 1 had it."""
        return self.latents.active


def read_evaluation(run: Run, weights_hash: str) -> EvaluationResult | None:
    """evaluation.json; None where it is missing, damaged, of an earlier format or of other weights."""
    try:
        result = EvaluationResult.model_validate_json(run.evaluation.read_bytes())
    except (OSError, ValueError):
        return None
    return result if result.weights_hash == weights_hash else None
