"""What training minimises: pure functions of the terms, in nats per image."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vaekit.parts.types import Terms, part


@part("objective", "elbo")
@dataclass(frozen=True)
class Elbo:
    """-E_q[log p(x|z)] + beta KL(q || p) (Kingma & Welling 2014, equation 7; beta: Higgins et al. 2017, equation 4).

    `warmup` epochs raise beta linearly from 0. `free_bits` lambda replaces the KL by the sum over latents of
    max(lambda, KL of that latent averaged over the batch) (Kingma et al. 2016, equation 15, a latent a group).
    """

    beta: float = 1.0
    warmup: float = 0.0
    free_bits: float = 0.0
    samples: int = 1

    @property
    def needs(self) -> Mapping[str, frozenset[str]]:
        per_latent = {"factorised"} if self.free_bits else set()
        return {
            "posterior": frozenset({"density_at_sample", *per_latent}),
            "prior": frozenset({"density_anywhere", *per_latent}),
        }

    @property
    def settled(self) -> float:
        return self.warmup

    def __call__(self, terms: Terms, epoch: float = float("inf")) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction = -terms.log_px.mean()
        kl = sum((group.kl.mean() for group in terms.groups), start=reconstruction.new_zeros(()))
        beta = self.beta * min(1.0, epoch / self.warmup) if self.warmup else self.beta
        paid = kl if not self.free_bits else sum(self._beyond_free(group.kl_per_latent) for group in terms.groups)
        loss = reconstruction + beta * paid
        return loss, {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def _beyond_free(self, kl: Tensor | None) -> Tensor:
        assert kl is not None, "build.py lets only factorised posteriors have free bits"
        return kl.mean(0).clamp(min=self.free_bits).sum()
