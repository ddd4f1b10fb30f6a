"""The registry that ties a component to its settings, and what components are capable of."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from vaekit.config.base import BaseConfig


def make_component(slot: str, settings: BaseConfig, **context: Any) -> Any:
    """A component from its settings and from as much of what the rest of the model decides as it asks for."""
    make = components(slot)[settings.model_dump()["kind"]]
    wanted = inspect.signature(make).parameters
    context = {name: value for name, value in context.items() if name in wanted}
    return make(**context, **settings.model_dump(exclude={"kind"}))


Requirements = Mapping[str, frozenset[str]]
"""What a component needs others to offer: slot -> words of CAPABILITIES."""


# --- Registry --------------------------------------------------------------------------------------------------------

CAPABILITIES = {
    "density_at_sample": "a log-density at its own samples",
    "density_anywhere": "a log-density at any point",
    "stopped_density": "a log-density whose parameters can be held fixed",
    "factorised": "independent latents",
    "moments": "a mean and a variance in closed form",
    "reparameterised": "samples that gradients flow through",
    "standard": "the density of the standard normal",
    "single_group": "one latent group",
    "any_weights": "a noise level that is right for samples of unequal weight",
    "normalised": "probabilities that sum to 1 over the 256 levels",
    "labels": "classes",
    "batch": "more than one image in a step",
}
"""What a component may offer, and an objective or another component may need, as in "a prior with ..". Labels and a batch are
offered by the model as a whole, "model" in `Requirements`."""


Make = TypeVar("Make", bound=Callable[..., Any])


_COMPONENTS: dict[tuple[str, str], Callable[..., Any]] = {}


def register(slot: str, kind: str) -> Callable[[Make], Make]:
    """Register a component under the `kind` of its settings class; the fields of that class are its keyword arguments."""

    def add(make: Make) -> Make:
        _COMPONENTS[slot, kind] = make
        return make

    return add


def components(slot: str) -> dict[str, Callable[..., Any]]:
    """The components of a slot, by kind."""
    return {kind: make for (where, kind), make in _COMPONENTS.items() if where == slot}


def provides(component: nn.Module | Callable[..., Any]) -> frozenset[str]:
    """What a component, or a kind of component, is capable of."""
    return getattr(component, "provides", frozenset())
