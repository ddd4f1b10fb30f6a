"""The evidence lower bound, and functions that objectives share. All values are in nats per image."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.config.objectives import ElboConfig
from vaekit.models.registry import BuildContext, Capability, register
from vaekit.models.terms import Objective, Terms


def requires_densities(
    posterior: Iterable[Capability] = (), prior: Iterable[Capability] = (), **others: Iterable[Capability]
) -> dict[str, frozenset[Capability]]:
    """What a KL divergence requires, and further capabilities of posterior, prior and others."""
    posterior, prior = {Capability.DENSITY_AT_SAMPLE, *posterior}, {Capability.DENSITY_ANYWHERE, *prior}
    slots = {"posterior": posterior, "prior": prior, **others}
    return {slot: frozenset(capabilities) for slot, capabilities in slots.items()}


def reconstruction_loss(terms: Terms) -> Float[Tensor, ""]:
    """-E_q[log p(x|z)]."""
    return -terms.log_px.mean()


def kl_loss(terms: Terms) -> Float[Tensor, ""]:
    """KL(q || p), summed over groups."""
    return sum_terms([group.kl.mean() for group in terms.groups])


def sum_terms(values: list[Tensor]) -> Float[Tensor, ""]:
    return values[0] if len(values) == 1 else torch.stack(values).sum()


def warmup_share(epoch: float, warmup: float, cycles: int) -> float:
    """The share of its final value that a schedule has reached, from 0 to 1.

    It rises linearly over `warmup` epochs and stays at 1 for as many, `cycles` times (Fu et al. 2019,
    arXiv:1903.10145, with R = 0.5); after the last rise it stays at 1.
    """
    return 1.0 if epoch >= warmup_end(warmup, cycles) else min(1.0, epoch % (2 * warmup) / warmup)


def warmup_end(warmup: float, cycles: int) -> float:
    """The epoch from which `warmup_share` stays at 1."""
    return (2 * cycles - 1) * warmup


@register("objective", "elbo")
class Elbo(Objective):
    """Minus the ELBO (Kingma & Welling 2014, equation 7), with beta (Higgins et al. 2017, equation 4).

    Beta rises linearly from 0 over `warmup` epochs, `cycles` times (see `warmup_share`). `free_bits` lambda
    replaces the KL by the sum over latents of max(lambda, KL of the latent averaged over the batch) (Kingma
    et al. 2016, equation 15, with one latent per group). `capacity` C replaces it by |KL - C| with the mean
    KL of the batch, and C rises instead of beta (Burgess et al. 2018, arXiv:1804.03599, equation 8).
    """

    settings: ElboConfig

    def __init__(self, settings: ElboConfig, context: BuildContext = BuildContext()) -> None:
        super().__init__(settings, context)
        per_latent = {Capability.FACTORIZED} if settings.free_bits else set()
        self.requires = requires_densities(per_latent, per_latent)
        self.schedule_end = warmup_end(settings.warmup, settings.cycles)
        # Both depend on the mean KL of the batch
        self.supports_accumulation = not (settings.free_bits or settings.capacity)

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction, kl, beta = reconstruction_loss(terms), kl_loss(terms), self.settings.beta
        share = warmup_share(epoch, self.settings.warmup, self.settings.cycles)
        if self.settings.capacity:
            kl_penalty = beta * (kl - share * self.settings.capacity).abs()
        elif self.settings.free_bits:
            floored = [self._floored(group.kl_per_latent) for group in terms.groups]
            kl_penalty = share * beta * sum_terms(floored)
        else:
            kl_penalty = share * beta * kl
        loss = reconstruction + kl_penalty
        return loss, {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def _floored(self, kl: Tensor | None) -> Tensor:
        assert kl is not None, "free bits require factorized posteriors"
        return kl.mean(0).clamp(min=self.settings.free_bits).sum()
