"""The parts of a model as modules of tensors, each of which becomes a file: encoder, decoder, prior.

Images are uint8 [N, H, W, C] and latents [N, D] or [N, c, h, w], as in `TrainedModel`. A prior has no random
numbers: it maps noise to latents.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.errors import UserError, setting
from vaekit.latents.sampling import seeded
from vaekit.models.distributions.latents import (
    DiagonalGaussian,
    Flow,
    FullGaussian,
    Mixture,
    MixtureOfClass,
    map_parameters,
)
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.registry import Capability
from vaekit.models.terms import Labels
from vaekit.models.vae import VAE
from vaekit.runs.loaded import LoadedModel

ROWS = 7
"""Rows of the example inputs."""


@dataclass(frozen=True, eq=False)
class Part:
    """A module, and inputs by the names of its arguments, `ROWS` rows of each."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    note: str = ""
    """What it is, if its name does not say that."""

    @torch.no_grad()
    def __call__(self, rows: int) -> dict[str, Tensor]:
        """The outputs for the first rows of the inputs."""
        values = self.module(**{name: tensor[:rows] for name, tensor in self.inputs.items()})
        return dict(zip(self.outputs, values, strict=True))


class EncoderPart(nn.Module):
    """Images to mean and log-variance of q(z | x), or to the mean alone where it has no variance in closed
    form."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae, self.has_variance = vae, Capability.MOMENTS in vae.posterior.provides

    def forward(
        self,
        images: UInt8[Tensor, "N H W C"],
        labels: Int64[Tensor, " N"] | None = None,
        conditions: Float[Tensor, "N K"] | None = None,
    ) -> tuple[Tensor, ...]:
        x = images.permute(0, 3, 1, 2).float() / 255
        q = self.vae.posterior_of(x, labels if conditions is None else conditions)
        values = (q.mean, q.variance.log()) if self.has_variance else (q.mean,)
        return tuple(value.unflatten(1, self.vae.latent_shape) for value in values)


class DecoderPart(nn.Module):
    """Latents to images: pixels in [0, 1], and rounded to 256 levels."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(
        self,
        latents: Tensor,
        labels: Int64[Tensor, " N"] | None = None,
        conditions: Float[Tensor, "N K"] | None = None,
    ) -> tuple[Tensor, ...]:
        x = self.vae.image(latents.flatten(1), labels if conditions is None else conditions)
        location = x.permute(0, 2, 3, 1).clamp(0, 1)
        return location.mul(255).round().to(torch.uint8), location


class DensityPart(nn.Module):
    """Noise to draws of a prior p(z | y) that is a distribution."""

    def __init__(self, vae: VAE, fitted: FittedPrior | None) -> None:
        super().__init__()
        self.vae, self.fitted = vae, fitted
        with torch.no_grad():  # the components of some priors are encoded images: once is enough
            p = vae.prior(vae.encode, vae.labels_in_turn(ROWS)) if fitted is None else None
        self.fixed = p if isinstance(p, Mixture) else None
        self.takes_labels = p is not None and len(p.batch_shape) > 0
        if fitted is not None:
            p = fitted(torch.zeros(ROWS, dtype=torch.long))
            self.takes_labels = len(fitted.shares) > 1
        self.takes_choice = isinstance(p, Mixture | MixtureOfClass) and p.logits.shape[-1] > 1

    def forward(
        self,
        noise: Tensor,
        choice: Float[Tensor, " N"] | None = None,
        labels: Int64[Tensor, " N"] | None = None,
        conditions: Float[Tensor, "N K"] | None = None,
    ) -> tuple[Tensor]:
        z = noise.flatten(1)
        if self.fixed is not None:
            p: Distribution = self.fixed
        elif self.fitted is not None:
            p = self.fitted(z.new_zeros(z.shape[0], dtype=torch.long) if labels is None else labels)
        else:
            p = self.vae.prior(self.vae.encode, labels if conditions is None else conditions)
        return (latents_of_noise(p, z, choice).unflatten(1, noise.shape[1:]),)


class FlowMatchingPart(nn.Module):
    """Noise to draws of the second stage."""

    def __init__(self, model: FlowMatching, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.shape = model, shape
        self.takes_labels = model.conditions > 0 or model.classes > 1
        self.guidance = model.guidance if model.has_guidance else 1.0
        groups = model.class_of_group[model.group_shares > 0]
        self.takes_choice = not model.conditions and len(groups) > len(groups.unique())

    def forward(
        self,
        noise: Tensor,
        choice: Float[Tensor, " N"] | None = None,
        labels: Int64[Tensor, " N"] | None = None,
        conditions: Float[Tensor, "N K"] | None = None,
    ) -> tuple[Tensor]:
        z = noise.flatten(1)
        return (self.model.solve(z, self.label(z, choice, labels, conditions)).unflatten(1, self.shape),)

    def label(
        self,
        z: Float[Tensor, "N D"],
        choice: Float[Tensor, " N"] | None,
        labels: Int64[Tensor, " N"] | None,
        conditions: Float[Tensor, "N K"] | None,
    ) -> Labels:
        """The label of the network."""
        if conditions is not None:
            return self.model.label_of_conditions(conditions)
        y = z.new_zeros(z.shape[0], dtype=torch.long) if labels is None else labels
        return self.model.label_of_group(y, choose(self.model.group_weights(y), choice))


class VelocityPart(nn.Module):
    """The velocity of the second stage at a time, with its guidance: `solve` is a loop over it."""

    def __init__(self, part: FlowMatchingPart) -> None:
        super().__init__()
        self.part = part

    def forward(
        self,
        position: Tensor,
        time: Float[Tensor, ""],
        choice: Float[Tensor, " N"] | None = None,
        labels: Int64[Tensor, " N"] | None = None,
        conditions: Float[Tensor, "N K"] | None = None,
    ) -> Tensor:
        x = position.flatten(1)
        label = self.part.label(x, choice, labels, conditions)
        velocity: Tensor = self.part.model.guided(x, time.expand(x.shape[0]), label, self.part.guidance)
        units: Tensor = velocity.unflatten(1, self.part.shape)
        return units


def latents_of_noise(
    p: Distribution, noise: Float[Tensor, "N D"], choice: Float[Tensor, " N"] | None
) -> Float[Tensor, "N D"]:
    """Draws of p, from draws of a standard normal, and uniform numbers that choose components.

    Raises:
        UserError: p is a mixture of flows.
    """
    match p:
        case DiagonalGaussian():
            return p.loc + p.stddev * noise
        case FullGaussian():
            return p.loc + (p.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
        case Flow():
            z: Tensor = p.transform.inv(latents_of_noise(p.base, noise, choice))
            return z
        case MixtureOfClass():
            number = choose(p.logits[p.y].softmax(-1), choice)
            return latents_of_noise(map_parameters(p.components, lambda t: t[p.y, number]), noise, None)
        case Mixture(components=DiagonalGaussian() | FullGaussian() as components):
            number = choose(p.logits.softmax(-1).expand(noise.shape[0], -1), choice)
            return latents_of_noise(map_parameters(components, lambda t: t[number]), noise, None)
    hint = f"Train with {setting('posterior.kind', 'gaussian')}."
    raise UserError("A prior 'vamp' of posteriors that are flows cannot be exported.", hint)


def choose(weights: Float[Tensor, "N K"], choice: Float[Tensor, " N"] | None) -> Int64[Tensor, " N"]:
    """The place in every row at which the cumulated weights exceed the share `choice` of their sum; without
    `choice` the first with a weight."""
    sums = weights.cumsum(1)
    total = sums[:, -1:]
    below = sums <= (torch.zeros_like(total) if choice is None else choice.unsqueeze(1) * total)
    return (below & (sums < total)).sum(1)  # the last place with a weight, however 1 is rounded


def parts_of(model: LoadedModel) -> tuple[Part, Part, Part]:
    """Encoder, decoder and prior of a model on the CPU: the fitted prior if there is one, else its own.

    The example inputs are noise, the latents that the prior makes of it, and their images.
    """
    vae, fitted = model.vae, model.fitted_prior
    prior: DensityPart | FlowMatchingPart
    if isinstance(fitted, FlowMatching):
        prior = FlowMatchingPart(fitted, vae.latent_shape)
    else:
        prior = DensityPart(vae, fitted)
    with seeded(0, "export"):
        inputs = {"noise": torch.randn(ROWS, *vae.latent_shape), "choice": torch.rand(ROWS)}
    y = vae.labels_in_turn(ROWS)
    label = {} if y is None else {"conditions" if vae.vector else "labels": y}
    inputs |= label or {"labels": torch.arange(ROWS) % max(1, len(model.classes))}
    unused = {"choice": prior.takes_choice, **dict.fromkeys(("labels", "conditions"), prior.takes_labels)}
    inputs = {name: tensor for name, tensor in inputs.items() if unused.get(name, True)}
    last = Part("prior", prior, inputs, ("latents",), _prior_note(fitted))
    middle = Part("decoder", DecoderPart(vae), last(ROWS) | label, ("images", "location"))
    first = EncoderPart(vae)
    outputs = ("mean", "log_variance") if first.has_variance else ("mean",)
    return Part("encoder", first, {"images": middle(ROWS)["images"], **label}, outputs), middle, last


def _prior_note(fitted: FittedPrior | FlowMatching | None) -> str:
    if isinstance(fitted, FlowMatching):
        guidance = f", guidance {fitted.guidance:g}" if fitted.has_guidance else ""
        return f"{fitted.name}, {fitted.steps} steps{guidance}"
    return fitted.name if fitted is not None else "the model's own prior"
