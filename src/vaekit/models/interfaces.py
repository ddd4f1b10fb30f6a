"""What each slot of a model asks of its component. Objectives are in `terms.py`.

A component is constructed from its settings and a `BuildContext`. It may have a further method
`init_from_data`, called before the first training step and never on load (`training/data_init.py`):

    encoder   init_from_data(mean [C, H, W]): the mean image
    decoder   init_from_data(outputs [outputs, H, W]): the likelihood's `inverse_mean` of the mean image
    prior     init_from_data(x [K, C, H, W], y [K] or None): its `init_images` first images and their labels
"""

from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaekit.models.registry import Capability, Requirements
from vaekit.models.terms import Encode, Images, Labels

Image = Float[Tensor, "_ H W"]  # also what the decoder returns for one
Output = Float[Tensor, "*S B outputs H W"]  # what the decoder returns


@runtime_checkable
class ImageDistribution(Protocol):
    """p(x | z) with batch shape [S, B] and events [C, H, W].

    It may have a `location`, the image to show where that is not the mean.
    """

    @property
    def mean(self) -> Tensor: ...

    def log_prob(self, value: Tensor) -> Tensor: ...


def location(px: ImageDistribution) -> Tensor:
    """The images to show: the location of p(x | z), or without one its mean clipped to [0, 1]."""
    return px.location if hasattr(px, "location") else px.mean.clamp(0, 1)


class Component(nn.Module):
    """What fills a slot of the model."""

    provides: frozenset[Capability] = frozenset()
    requires: ClassVar[Requirements] = MappingProxyType({})


class Encoder(Component):
    """Images to features."""

    features: tuple[int, ...]
    """Shape of its output for one image: (F,), or (F, h, w) for a latent image (c, h, w)."""

    def forward(self, x: Images, y: Labels | None = None) -> Float[Tensor, "B *features"]:
        raise NotImplementedError


class Posterior(Component):
    """Features to q(z | x) over flat latents."""

    def forward(self, features: Tensor) -> Distribution:
        raise NotImplementedError


class Prior(Component):
    """p(z | y), with an empty batch shape where it is the same for all y."""

    init_images: int = 0
    """Number of training images that `init_from_data` takes."""

    def forward(self, encode: Encode, y: Labels | None = None) -> Distribution:
        """A prior made of encodings (VampPrior) calls `encode`; others need not."""
        raise NotImplementedError


class Decoder(Component):
    """Flat latents to what the likelihood reads."""

    def forward(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, "N outputs H W"]:
        raise NotImplementedError


class Likelihood(Component):
    """The decoder's output to p(x | z)."""

    outputs: int
    """Channels of the decoder's output."""
    support: constraints.Constraint
    """Pixel values that it allows; others are rejected before training."""
    likelihood_kind: Literal["probability", "density"]
    supports_accumulation: bool = True
    """Whether a batch may be split into micro-batches: not if a state follows the batches."""

    def forward(self, output: Output, x: Images | None = None) -> Any:
        """An `ImageDistribution` whose pixels are independent, each given its place in the output alone.

        `x` is given in training, to a likelihood whose scale follows the data.
        """
        raise NotImplementedError

    def prepare_target(self, x: Images) -> Images:
        """What is observed of an image: the image itself, or pixels sampled from it."""
        return x

    def inverse_mean(self, mean: Image) -> Image | None:
        """The output whose distribution has this mean, where decoders start; None if unknown."""
        return None
