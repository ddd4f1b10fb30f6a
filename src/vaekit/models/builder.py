"""From a configuration to a model and an objective, refusing what does not make sense together."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import nn

import vaekit.models.likelihoods
import vaekit.models.networks
import vaekit.models.objectives.elbo
import vaekit.models.objectives.importance
import vaekit.models.objectives.penalties
import vaekit.models.posteriors
import vaekit.models.priors  # noqa: F401  importing the slots registers their components
from vaekit.config.config import Config
from vaekit.errors import UserError
from vaekit.models.compatibility import require_compatible
from vaekit.models.registry import BuildContext, make_component
from vaekit.models.terms import Objective
from vaekit.models.vae import VAE
from vaekit.utils.device import fork_rng
from vaekit.utils.random import derive_seed


def build(
    config: Config,
    shape: tuple[int, int, int],
    classes: int = 0,
    images: int = 0,
    networks: Mapping[str, nn.Module] = MappingProxyType({}),
) -> tuple[VAE, Objective]:
    """The model of a configuration for images of `shape` (C, H, W), and what it is trained to minimise.

    Weights are drawn from the configuration's seed; torch's own random state is left as it was. `classes` is the number
    of labels in the data; it matters only to a conditional model. `images` is the number of training images, for an
    objective whose estimate depends on it; a model that is only used does not need it. `networks` are the user's own
    modules, "encoder" or "decoder", where the configuration's kind is `own`.

    Raises:
        UserError: components that do not go together, in one sentence that names both.
    """
    if config.conditional and classes == 0:
        raise UserError(
            "--conditional needs classes, but these images have none: put each class in a folder of its own."
        )
    for slot in networks:
        if (kind := getattr(config, slot).kind) != "own":
            raise UserError(f"This model's {slot} is {kind!r}, not a module of yours: leave {slot}= out.")
    context = BuildContext(shape, config.latent_shape, classes if config.conditional else 0, images)
    objective: Objective = make_component("objective", config.objective, context)
    with fork_rng():
        require_compatible(config, classes, images)
        torch.manual_seed(derive_seed(config.training.seed, "weights"))
        context = replace(context, modules={slot: copy.deepcopy(module) for slot, module in networks.items()})
        likelihood = make_component("likelihood", config.likelihood, context)
        encoder = make_component("encoder", config.encoder, context)
        context = replace(context, features=encoder.features, outputs=likelihood.outputs)
        posterior = make_component("posterior", config.posterior, context)
        prior = make_component("prior", config.prior, context)
        decoder = make_component("decoder", config.decoder, context)
        model = VAE(encoder, posterior, prior, decoder, likelihood, context)
    # Images come with their colours last in memory, as convolutions like it; so do the weights then
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, objective
