"""The evidence lower bound and what objectives are made of: pure functions of the terms, in nats per image."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.models.registry import Needs, part
from vaekit.models.terms import Terms

# --- What objectives are made of -------------------------------------------------------------------------------------


def densities(posterior: Iterable[str] = (), prior: Iterable[str] = ()) -> dict[str, frozenset[str]]:
    """The needs of whatever has a KL divergence in it, and more of either room."""
    return {
        "posterior": frozenset({"density_at_sample", *posterior}),
        "prior": frozenset({"density_anywhere", *prior}),
    }


def reconstruction(terms: Terms) -> Float[Tensor, ""]:
    """-E_q[log p(x|z)]."""
    return -terms.log_px.mean()


def divergence(terms: Terms) -> Float[Tensor, ""]:
    """KL(q || p), summed over groups."""
    return total([group.kl.mean() for group in terms.groups])


def total(values: Sequence[Tensor]) -> Float[Tensor, ""]:
    return values[0] if len(values) == 1 else torch.stack([*values]).sum()


def rise(epoch: float, warmup: float, cycles: int) -> float:
    """A schedule's share of its final value, from 0 to 1.

    It rises linearly over `warmup` epochs and stays for as many, `cycles` times (Fu et al. 2019, arXiv:1903.10145,
    with R = 0.5); after the last rise it stays for good.
    """
    if epoch >= end_of_rises(warmup, cycles):
        return 1.0
    return min(1.0, epoch % (2 * warmup) / warmup)


def end_of_rises(warmup: float, cycles: int) -> float:
    """Epochs until `rise` has reached 1 for good."""
    return (2 * cycles - 1) * warmup


# --- One sample, or many that do not know of each other --------------------------------------------------------------


@part("objective", "elbo")
@dataclass(frozen=True)
class Elbo:
    """-E_q[log p(x|z)] + beta KL(q || p) (Kingma & Welling 2014, equation 7; beta: Higgins et al. 2017, equation 4).

    `warmup` epochs raise beta linearly from 0, `cycles` times (see `rise`). `free_bits` lambda replaces the KL by the
    sum over latents of max(lambda, KL of that latent averaged over the batch) (Kingma et al. 2016, equation 15, a
    latent a group). `capacity` C replaces it by |KL - C| of the batch's mean KL, and then C is what rises (Burgess et
    al. 2018, arXiv:1804.03599, equation 8).
    """

    beta: float = 1.0
    warmup: float = 0.0
    cycles: int = 1
    free_bits: float = 0.0
    capacity: float = 0.0
    samples: int = 1

    @property
    def needs(self) -> Needs:
        per_latent = {"factorised"} if self.free_bits else set()
        return densities(per_latent, per_latent)

    @property
    def settled(self) -> float:
        return end_of_rises(self.warmup, self.cycles)

    @property
    def divisible(self) -> bool:
        return not (self.free_bits or self.capacity)  # which look at the mean KL of a batch

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        missed, kl = reconstruction(terms), divergence(terms)
        share = rise(epoch, self.warmup, self.cycles)
        if self.capacity:
            paid = self.beta * (kl - share * self.capacity).abs()
        elif self.free_bits:
            paid = share * self.beta * total([self._floored(group.kl_per_latent) for group in terms.groups])
        else:
            paid = share * self.beta * kl
        loss = missed + paid
        return loss, {"loss": loss, "reconstruction": missed, "kl": kl}

    def _floored(self, kl: Tensor | None) -> Tensor:
        assert kl is not None, "compatibility.py lets only factorised posteriors have free bits"
        return kl.mean(0).clamp(min=self.free_bits).sum()
