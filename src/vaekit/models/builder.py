"""Build a model and its objective from a configuration."""

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
import vaekit.models.priors  # noqa: F401  importing registers components
from vaekit.config.config import Config
from vaekit.errors import UserError, setting
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
    conditions: int = 0,
) -> tuple[VAE, Objective]:
    """Build the model of a configuration, with weights drawn from its seed, and the objective to train it
    with.

    Args:
        shape: (C, H, W) of the images.
        classes: number of labels in the data; used by conditional models only.
        images: number of training images; 0 to use a model without training it.
        networks: the user's modules, "encoder" or "decoder", where the configuration's kind is `own`.
        conditions: numbers in the vector of conditions of every image, which labels are then; 0 for none.

    Raises:
        UserError: the components are incompatible, or do not fit the images.
    """
    if config.conditional and classes == 0 and not conditions:
        hint = f"Put the images of each class in a subfolder, or set {setting('conditional', False)}."
        raise UserError("The model is conditional on classes, but the images have no classes.", hint)
    for slot in networks:
        if (kind := getattr(config, slot).kind) != "own":
            message = f"The {slot} of this model is {kind!r}, not a custom module."
            raise UserError(message, f"Omit {setting(slot)}.")
    config = config.with_latents(shape)
    labels = conditions or (classes if config.conditional else 0)
    context = BuildContext(shape, config.latent_shape, labels, images, vector=bool(conditions))
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
        model.latent_noise = config.training.latent_noise
    # Images come in channels-last memory format, which convolutions prefer; the weights should match
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, objective
