"""Densities of latents per class, fitted after training by `latents/fit_prior.py`."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution
from zuko.transforms import ComposedTransform

from vaekit.models import flows
from vaekit.models.distributions.latents import DiagonalGaussian, Flow, FullGaussian, MixtureOfClass, tempered
from vaekit.models.terms import Labels


class Gaussians(nn.Module):
    """K Gaussians for each of Y classes; `scale` holds standard deviations or lower triangles."""

    logits: Float[Tensor, "Y K"]
    loc: Float[Tensor, "Y K D"]
    scale: Float[Tensor, "Y K *D"]

    def __init__(self, latents: int, classes: int, components: int, full: bool) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(classes, components))
        self.register_buffer("loc", torch.zeros(classes, components, latents))
        one = torch.eye(latents) if full else torch.ones(latents)
        self.register_buffer("scale", one.repeat(classes, components, *[1] * one.ndim))
        self.full = full

    def forward(self, y: Int[Tensor, " N"]) -> MixtureOfClass:
        if self.full:
            return MixtureOfClass(self.logits, FullGaussian(self.loc, self.scale), y)
        return MixtureOfClass(self.logits, DiagonalGaussian(self.loc, 2 * self.scale.log()), y)


class Splines(nn.Module):
    """Spline couplings conditioned on the class, from the standard normal to the scale of the encodings."""

    loc: Float[Tensor, " D"]
    scale: Float[Tensor, " D"]

    def __init__(self, latents: int, classes: int, steps: int = 3, hidden: int = 128) -> None:
        super().__init__()
        self.classes = classes
        self.steps = flows.spline(latents, classes if classes > 1 else 0, steps, (hidden,))
        self.register_buffer("loc", torch.zeros(latents))
        self.register_buffer("scale", torch.ones(latents))

    def forward(self, y: Int[Tensor, " N"]) -> Distribution:
        origin = torch.zeros(y.shape[0], len(self.loc), device=y.device)
        context = F.one_hot(y, self.classes).to(origin) if self.classes > 1 else None
        units = AffineTransform(-self.loc / self.scale, 1 / self.scale, event_dim=1)
        return Flow(ComposedTransform(units, self.steps(context)), DiagonalGaussian(origin, origin))


DENSITIES: dict[str, Callable[..., nn.Module]] = {"gaussians": Gaussians, "splines": Splines}


class FittedPrior(nn.Module):
    """A density of latents for each class, with the frequencies of the classes. `metadata` is its "name", and
    "kind", "latents", "classes" and "settings" to build it from."""

    shares: Float[Tensor, " Y"]

    def __init__(self, metadata: dict[str, Any]) -> None:
        super().__init__()
        self.metadata = metadata
        self.latents, classes = metadata["latents"], metadata["classes"]
        self.density = DENSITIES[metadata["kind"]](self.latents, classes, **metadata["settings"])
        self.register_buffer("shares", torch.full((classes,), 1 / classes))

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    def named(self, name: str) -> "FittedPrior":
        self.metadata = {**self.metadata, "name": name}
        return self

    def forward(self, y: Int[Tensor, " N"]) -> Distribution:
        """p(z | y), with the batch shape of `y`."""
        return self.density(y)

    def sample_prior(self, n: int, y: Labels | None = None, temperature: float = 1.0) -> Float[Tensor, "n D"]:
        """`n` samples of p(z | y), its noise scaled by `temperature`; without `y`, or with conditions, of
        classes by frequency."""
        given = y is not None and not y.is_floating_point()
        labels = y if given else torch.multinomial(self.shares, n, replacement=True)
        return tempered(self(labels), temperature).sample()

    def log_prior(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, " N"]:
        """log p(z | y); without `y`, or with conditions, log p(z) = log sum_y p(y) p(z | y)."""
        if y is not None and not y.is_floating_point():
            return self(y).log_prob(z)
        log_joint = [
            self(torch.full((len(z),), label, device=z.device)).log_prob(z) + math.log(share)
            for label, share in enumerate(self.shares.tolist())
            if share > 0
        ]
        return torch.stack(log_joint).logsumexp(0)
