"""The terms of a model with one group of latents."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from vaekit.models.terms import Encode, Group, Images, Labels, Terms


def single_level_terms(
    encode: Encode,
    prior: Callable[[Encode, Labels | None], Distribution],
    log_likelihood: Callable[[Tensor], Tensor],
    x: Images,
    y: Labels | None,
    samples: int,
) -> Terms:
    """x -> q(z | x, y) -> z -> log p(x | z, y). `log_likelihood` maps z [S, B, D] to log p(x | z) [S, B]."""
    q = encode(x, y)
    z, log_q = rsample_with_log_prob(q, samples)
    return Terms(log_px=log_likelihood(z), groups=(Group(z, q, prior(encode, y), log_q),), y=y)


def rsample_with_log_prob(
    q: Distribution, samples: int
) -> tuple[Float[Tensor, "S B *D"], Float[Tensor, "S B"] | None]:
    """Reparameterized samples of z, and log q at them where the distribution returns it with the sample."""
    if hasattr(q, "rsample_and_log_prob"):
        z, log_q = q.rsample_and_log_prob((samples,))
        return z, log_q
    return q.rsample((samples,)), None
