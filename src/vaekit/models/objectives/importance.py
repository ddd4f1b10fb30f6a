"""Importance-weighted bounds in nats per image, with weights w = p(x|z) p(z) / q(z|x)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vaekit.config.objectives import DregConfig, IwaeConfig, MiwaeConfig
from vaekit.models.objectives.elbo import kl_loss, reconstruction_loss, requires_densities
from vaekit.models.registry import Capability, register
from vaekit.models.terms import Objective, Terms


def importance_bound(log_w: Float[Tensor, "S B"], bounds: int = 1) -> Float[Tensor, ""]:
    """log(1/K sum_k w_k) with K = S / bounds samples, averaged over bounds and images."""
    log_w = log_w.unflatten(0, (bounds, -1))
    return log_w.logsumexp(1).mean() - math.log(log_w.shape[1])


@register("objective", "iwae")
class Iwae(Objective):
    """-log(1/S sum_s w_s) (Burda et al. 2016, arXiv:1509.00519, equation 8)."""

    settings: IwaeConfig | MiwaeConfig
    requires = requires_densities(likelihood={Capability.IMPORTANCE_WEIGHTABLE})

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        log_w = terms.log_px + sum(group.log_p - group.log_q for group in terms.groups)
        bounds = self.settings.bounds if isinstance(self.settings, MiwaeConfig) else 1
        loss = -importance_bound(log_w, bounds)
        return loss, {"loss": loss, "reconstruction": reconstruction_loss(terms), "kl": kl_loss(terms)}


@register("objective", "miwae")
class Miwae(Iwae):
    """The mean of several bounds, each from an equal share of the samples, for a less noisy gradient of the
    encoder (Rainforth et al. 2018, arXiv:1802.04537, section 4)."""


@register("objective", "dreg")
class Dreg(Objective):
    """The value and the decoder's gradient of `iwae`, with the doubly reparameterized gradient for the
    encoder (Tucker et al. 2019, arXiv:1810.04152, equation 8), with v_s = w_s / sum w:

        sum over samples of  v_s^2  d log w_s / dz_s  dz_s / dphi

    The parameters phi of q are detached in log q, so that gradients reach phi through z alone. The derivative
    of the log of a sum contains one v_s; a hook on z, which stays in the graph, multiplies by the other.
    Parameters of p(x|z) and of a learned p(z) are not reached through z and keep the single v_s.
    """

    settings: DregConfig
    requires = requires_densities(
        {Capability.DETACHABLE_DENSITY, Capability.SINGLE_GROUP},
        likelihood={Capability.IMPORTANCE_WEIGHTABLE},
    )

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        (group,) = terms.groups
        log_w = terms.log_px + group.log_p - group.log_q_detached
        if group.z.requires_grad:  # False where only the value is needed
            share = log_w.detach().softmax(0).unsqueeze(-1)
            group.z.register_hook(lambda grad: grad * share)
        loss = -importance_bound(log_w)
        with torch.no_grad():
            kl = kl_loss(terms)
        return loss, {"loss": loss, "reconstruction": reconstruction_loss(terms), "kl": kl}
