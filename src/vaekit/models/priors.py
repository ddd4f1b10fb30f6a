"""p(z | y): what latents look like before an image is seen."""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.models import flows
from vaekit.models.distributions.discretized import clamp_straight_through
from vaekit.models.distributions.latents import DiagonalGaussian, Flow, Mixture, StandardNormal
from vaekit.models.registry import Requirements, register
from vaekit.models.terms import Encode, Labels

Shape = tuple[int, ...]


DENSITY = frozenset({"density_at_sample", "density_anywhere"})


@register("prior", "normal")
class NormalPrior(nn.Module):
    """N(0, I), without parameters."""

    provides = DENSITY | {"factorised", "reparameterised", "standard"}
    anchor: Tensor

    def __init__(self, latents: Shape) -> None:
        super().__init__()
        self.latents = math.prod(latents)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)  # knows which device the model is on

    def forward(self, encode: Encode, y: Labels | None = None) -> StandardNormal:
        """p(z | y). A prior made of encodings (VampPrior) calls `encode`; this one needs neither argument."""
        return StandardNormal(self.latents, self.anchor.device)


@register("prior", "mixture")
class MixturePrior(nn.Module):
    """Gaussians with learned means, variances and weights; their means start as draws of the standard normal."""

    provides = DENSITY

    def __init__(self, latents: Shape, components: int = 100) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.randn(components, math.prod(latents)))
        self.log_variance = nn.Parameter(torch.zeros(components, math.prod(latents)))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, encode: Encode, y: Labels | None = None) -> Mixture:
        return Mixture(self.logits, DiagonalGaussian(self.loc, self.log_variance))


@register("prior", "vamp")
class VampPrior(nn.Module):
    """The mean of the posteriors of K pseudo-inputs, which are learned (Tomczak & Welling 2018, arXiv:1705.07120,
    equation 9). They stay in [0, 1]; in a conditional model each has a label of its own that does not change."""

    provides = DENSITY
    requires: ClassVar[Requirements] = {"posterior": frozenset({"density_anywhere"})}
    labels: Tensor | None

    def __init__(self, shape: Shape, classes: int, components: int = 500) -> None:
        super().__init__()
        self.pseudo_inputs = nn.Parameter(torch.rand(components, *shape))
        self.register_buffer("labels", torch.arange(components) % classes if classes else None)

    @property
    def init_images(self) -> int:
        """Training images that `start` asks for."""
        return len(self.pseudo_inputs)

    @torch.no_grad()
    def init_from_data(self, x: Float[Tensor, "K C H W"], y: Labels | None) -> None:
        """Take images, and in a conditional model their labels, as the first pseudo-inputs."""
        self.pseudo_inputs.copy_(x)
        if self.labels is not None and y is not None:
            self.labels.copy_(y)

    def forward(self, encode: Encode, y: Labels | None = None) -> Mixture:
        components = encode(clamp_straight_through(self.pseudo_inputs, 0.0, 1.0), self.labels)
        return Mixture(self.pseudo_inputs.new_zeros(len(self.pseudo_inputs)), components)


@register("prior", "flow")
class FlowPrior(nn.Module):
    """The standard normal carried through coupling steps: RealNVP or neural splines, quick both ways."""

    provides = DENSITY | {"reparameterised"}
    anchor: Tensor

    def __init__(
        self,
        latents: Shape,
        transform: Literal["realnvp", "spline"] = "realnvp",
        steps: int = 6,
        hidden: tuple[int, ...] = (256,),
    ) -> None:
        super().__init__()
        make = flows.affine if transform == "realnvp" else flows.spline
        self.latents = math.prod(latents)
        self.steps = make(self.latents, 0, steps, hidden)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def forward(self, encode: Encode, y: Labels | None = None) -> Flow:
        return Flow(self.steps(None), StandardNormal(self.latents, self.anchor.device))


@register("prior", "class")
class ClassPrior(nn.Module):
    """p(z | y): a Gaussian of its own for every class."""

    provides = DENSITY | {"factorised", "reparameterised"}
    requires: ClassVar[Requirements] = {"model": frozenset({"labels"})}

    def __init__(self, latents: Shape, classes: int) -> None:
        super().__init__()
        self.loc = nn.Embedding(classes, math.prod(latents))
        self.log_variance = nn.Embedding(classes, math.prod(latents))
        nn.init.zeros_(self.log_variance.weight)

    def forward(self, encode: Encode, y: Labels | None = None) -> DiagonalGaussian:
        assert y is not None, "a conditional model needs labels"
        return DiagonalGaussian(self.loc(y), self.log_variance(y))
