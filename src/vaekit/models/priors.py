"""Priors p(z | y)."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.config.base import BaseConfig
from vaekit.config.latents import FlowPriorConfig, MixturePriorConfig, VampPriorConfig
from vaekit.models import flows
from vaekit.models.distributions.discretized import clamp_straight_through
from vaekit.models.distributions.latents import DiagonalGaussian, Flow, Mixture
from vaekit.models.interfaces import Prior
from vaekit.models.networks.dense import embed
from vaekit.models.registry import DENSITY, BuildContext, Capability, Requirements, register
from vaekit.models.terms import Encode, Labels


@register("prior", "normal")
class NormalPrior(Prior):
    """N(0, I), without parameters."""

    provides = DENSITY | {Capability.FACTORIZED, Capability.REPARAMETERIZED, Capability.STANDARD_NORMAL}
    zeros: Tensor

    def __init__(self, settings: BaseConfig, context: BuildContext) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(context.latent_size), persistent=False)

    def forward(self, encode: Encode, y: Labels | None = None) -> DiagonalGaussian:
        return DiagonalGaussian(self.zeros, self.zeros)


@register("prior", "mixture")
class MixturePrior(Prior):
    """A learned mixture of Gaussians, whose means start at samples of the standard normal."""

    provides = DENSITY

    def __init__(self, settings: MixturePriorConfig, context: BuildContext) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.randn(settings.components, context.latent_size))
        self.log_variance = nn.Parameter(torch.zeros(settings.components, context.latent_size))
        self.logits = nn.Parameter(torch.zeros(settings.components))

    def forward(self, encode: Encode, y: Labels | None = None) -> Mixture:
        return Mixture(self.logits, DiagonalGaussian(self.loc, self.log_variance))


@register("prior", "vamp")
class VampPrior(Prior):
    """The mean of the posteriors of K learned pseudo-inputs in [0, 1], with fixed labels if conditional
    (Tomczak & Welling 2018, arXiv:1705.07120, equation 9)."""

    provides = DENSITY
    requires: ClassVar[Requirements] = {"posterior": frozenset({Capability.DENSITY_ANYWHERE})}
    labels: Tensor | None

    def __init__(self, settings: VampPriorConfig, context: BuildContext) -> None:
        super().__init__()
        self.pseudo_inputs = nn.Parameter(torch.rand(settings.components, *context.shape))
        labels = torch.arange(settings.components) % context.classes if context.classes else None
        if context.vector:
            labels = torch.zeros(settings.components, context.classes)
        self.register_buffer("labels", labels)
        self.init_images = settings.components

    @torch.no_grad()
    def init_from_data(self, x: Float[Tensor, "K C H W"], y: Labels | None) -> None:
        """Start from images, and in a conditional model from their labels."""
        self.pseudo_inputs.copy_(x)
        if self.labels is not None and y is not None:
            self.labels.copy_(y)

    def forward(self, encode: Encode, y: Labels | None = None) -> Mixture:
        components = encode(clamp_straight_through(self.pseudo_inputs, 0.0, 1.0), self.labels)
        return Mixture(self.pseudo_inputs.new_zeros(len(self.pseudo_inputs)), components)


@register("prior", "flow")
class FlowPrior(Prior):
    """The standard normal transformed by coupling steps: RealNVP or neural splines."""

    provides = DENSITY | {Capability.REPARAMETERIZED}

    def __init__(self, settings: FlowPriorConfig, context: BuildContext) -> None:
        super().__init__()
        make = flows.couplings if settings.transform == "realnvp" else flows.spline
        self.base = NormalPrior(settings, context)
        self.steps = make(context.latent_size, 0, settings.steps, settings.hidden)

    def forward(self, encode: Encode, y: Labels | None = None) -> Flow:
        return Flow(self.steps(None), self.base(encode))


@register("prior", "class")
class ClassPrior(Prior):
    """p(z | y): one learned Gaussian per class; its mean and log-variance are linear in conditions."""

    provides = DENSITY | {Capability.FACTORIZED, Capability.REPARAMETERIZED}
    requires: ClassVar[Requirements] = {"model": frozenset({Capability.LABELS})}

    def __init__(self, settings: BaseConfig, context: BuildContext) -> None:
        super().__init__()
        self.loc = nn.Embedding(context.classes, context.latent_size)
        self.log_variance = nn.Embedding(context.classes, context.latent_size)
        nn.init.zeros_(self.log_variance.weight)

    def forward(self, encode: Encode, y: Labels | None = None) -> DiagonalGaussian:
        assert y is not None, "a conditional model needs labels"
        return DiagonalGaussian(embed(self.loc, y), embed(self.log_variance, y))
