"""What components can do and are built from, and their registry by slot and kind."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from torch import nn

from vaekit.config.base import BaseConfig


class Capability(Enum):
    """What a component may provide and another one require; the value completes "a prior with ..."."""

    DENSITY_AT_SAMPLE = "a log-density at its own samples"
    DENSITY_ANYWHERE = "a log-density at any point"
    DETACHABLE_DENSITY = "a log-density whose parameters can be held fixed"
    FACTORIZED = "independent latents"
    MOMENTS = "a mean and a variance in closed form"
    REPARAMETERIZED = "samples that gradients flow through"
    STANDARD_NORMAL = "the density of the standard normal"
    SINGLE_GROUP = "one latent group"
    IMPORTANCE_WEIGHTABLE = "a noise level that is right for samples of unequal weight"
    NORMALIZED = "probabilities that sum to 1 over the 256 levels"
    LABELS = "a conditional model"  # provided, as is BATCH, by the model as a whole
    BATCH = "more than one image per step"


DENSITY = frozenset({Capability.DENSITY_AT_SAMPLE, Capability.DENSITY_ANYWHERE})
Requirements = Mapping[str, frozenset[Capability]]
"""Slot -> what its component has to provide; "model" for what the model as a whole provides."""


@dataclass(frozen=True)
class BuildContext:
    """What the data and the other components decide for a component; by default the smallest model."""

    shape: tuple[int, int, int] = (1, 1, 1)
    """(C, H, W) of the images."""
    latents: tuple[int, ...] = (1,)
    """(D,), or (c, h, w) of a latent image."""
    classes: int = 0
    """Classes that the model is conditioned on, or numbers in a vector of conditions; 0 for neither."""
    images: int = 0
    """Training images; 0 where the model is not trained."""
    features: tuple[int, ...] = ()
    """Shape of the encoder's output for one image; known, as are `outputs`, to components built later."""
    outputs: int = 0
    """Channels that the likelihood reads."""
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    """The user's modules, by slot."""
    vector: bool = False
    """Whether labels are vectors of conditions [B, classes] instead of numbers of classes [B]."""

    @property
    def latent_size(self) -> int:
        return math.prod(self.latents)

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """(outputs, H, W) of the decoder."""
        return (self.outputs, *self.shape[1:])


ComponentClass = TypeVar("ComponentClass", bound=type)

_COMPONENTS: dict[tuple[str, str], type] = {}


def register(slot: str, kind: str) -> Callable[[ComponentClass], ComponentClass]:
    """Register a class under the `kind` of its settings."""

    def add(component: ComponentClass) -> ComponentClass:
        _COMPONENTS[slot, kind] = component
        return component

    return add


def components(slot: str) -> dict[str, Any]:
    """The component classes of a slot, by kind."""
    return {kind: component for (place, kind), component in _COMPONENTS.items() if place == slot}


def make_component(slot: str, settings: BaseConfig, context: BuildContext = BuildContext()) -> Any:
    """Construct the component of a slot from its settings."""
    return components(slot)[settings.model_dump()["kind"]](settings, context)
