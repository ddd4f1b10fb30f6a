"""Objectives that add a penalty to the reconstruction loss or to the ELBO, in nats per image.

All but `l2` use the batch as a sample of the aggregate posterior q(z) = E_x[q(z|x)].
"""

import math
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, Normal

from vaekit.config.objectives import DipConfig, L2Config, MmdConfig, TotalCorrelationConfig
from vaekit.models.objectives.elbo import kl_loss, reconstruction_loss, requires_densities, sum_terms
from vaekit.models.registry import BuildContext, Capability, register
from vaekit.models.terms import Labels, Objective, Terms

# --- Maximum mean discrepancy ---


@register("objective", "mmd")
class Mmd(Objective):
    """Reconstruction + weight MMD^2(q(z), p(z)) + beta KL.

    With a deterministic posterior this is the Wasserstein autoencoder WAE-MMD (Tolstikhin et al. 2018,
    arXiv:1711.01558, equation 4 and algorithm 2), else Info-VAE (Zhao et al. 2019, arXiv:1706.02262; in their
    notation beta = 1 - alpha and weight = alpha + lambda - 1; alpha = 1 is their MMD-VAE). The default weight
    is ours.
    """

    settings: MmdConfig
    supports_accumulation = False

    def __init__(self, settings: MmdConfig, context: BuildContext = BuildContext()) -> None:
        super().__init__(settings, context)
        posterior, prior = frozenset({Capability.SINGLE_GROUP}), frozenset({Capability.REPARAMETERIZED})
        self.requires = {"posterior": posterior, "prior": prior, "model": frozenset({Capability.BATCH})}
        if settings.beta:
            self.requires = requires_densities(posterior, prior, model={Capability.BATCH})

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        (group,) = terms.groups
        z = group.z[0]
        prior_z = group.p.rsample(() if group.p.batch_shape else z.shape[:1])
        discrepancy = squared_mmd(z, prior_z, self.settings.kernel, terms.y)
        reconstruction = reconstruction_loss(terms)
        loss = reconstruction + self.settings.weight * discrepancy
        report = {"reconstruction": reconstruction, "mmd": discrepancy}
        if self.settings.beta:
            report["kl"] = kl_loss(terms)
            loss = loss + self.settings.beta * report["kl"]
        return loss, {"loss": loss, **report}


def squared_mmd(
    a: Float[Tensor, "B D"], b: Float[Tensor, "B D"], kernel: str = "imq", y: Labels | None = None
) -> Float[Tensor, ""]:
    """MMD^2 between two samples (Gretton et al. 2012, equation 4): the mean over pairs i != j of
    k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(a_j, b_i).

    With labels `y`, which a and b share, only pairs of the same label are used: over all pairs, the mixtures
    could be equal with the labels confused. With conditions, all pairs are used. The estimate is unbiased,
    since no point is paired with itself: it may be slightly negative. Without any pair it is 0.
    """
    pairs = ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    if y is not None and not y.is_floating_point():
        pairs = pairs & (y[:, None] == y)
    across = similarity(a, b, kernel)
    each = similarity(a, a, kernel) + similarity(b, b, kernel) - across - across.T
    return (each * pairs).sum() / pairs.sum().clamp(min=1)


IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Of the inverse multiquadric kernel, as in the code of Tolstikhin et al. 2018."""


def similarity(a: Float[Tensor, "A D"], b: Float[Tensor, "B D"], kernel: str) -> Float[Tensor, "A B"]:
    """The kernel k(a, b), 1 for equal points. Widths scale with d^2 of two samples of N(0, I), which is 2 D
    on average.

    imq: C / (C + d^2), the mean over C = 2 D times each of the authors' scales (Tolstikhin et al. 2018, whose
    code sums over them). rbf: exp(-d^2 / D) (Zhao et al. 2019; the D^2 of their code makes it flat for large
    D).
    """
    center = b.mean(0)  # far from the origin the expanded square would cancel
    a, b = a - center, b - center
    squares = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)
    latents = a.shape[1]
    if kernel == "rbf":
        return (-squares / latents).exp()
    widths = [2 * latents * scale for scale in IMQ_SCALES]
    return torch.stack([width / (width + squares) for width in widths]).mean(0)


# --- Total correlation ---


@register("objective", "total_correlation")
class TotalCorrelation(Objective):
    """Reconstruction + alpha MI + beta TC + gamma dimension-wise KL (Chen et al. 2018, arXiv:1802.04942,
    equations 2 and 4), at the samples:

        MI = log q(z|x) - log q(z), TC = log q(z) - sum_d log q(z_d), rest = sum_d log q(z_d) - log p(z_d)

    They add up to log q(z|x) - log p(z) at every sample.
    """

    settings: TotalCorrelationConfig
    supports_accumulation = False
    # One p(z) for all images: with a prior per class the last part would not be a divergence
    requires = requires_densities(
        {Capability.DENSITY_ANYWHERE, Capability.FACTORIZED, Capability.SINGLE_GROUP},
        {Capability.FACTORIZED, Capability.STANDARD_NORMAL},
        model={Capability.BATCH},
    )

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        if self.images < 1:
            raise ValueError("The objective 'total_correlation' needs the number of training images.")
        (group,) = terms.groups
        # [S, B, B, D]: latent d of sample s of image i, under the posterior of image j
        log_each = per_latent(group.q, group.z.unsqueeze(2))
        log_q_x = log_each.diagonal(dim1=1, dim2=2).sum(1)
        log_weights = stratified_log_weights(log_each.shape[1], self.images, group.z)
        log_joint = (log_each.sum(-1) + log_weights).logsumexp(-1)
        log_marginals = (log_each + log_weights.unsqueeze(-1)).logsumexp(2).sum(-1)
        log_p = per_latent(group.p, group.z).sum(-1)
        information = (log_q_x - log_joint).mean()
        correlation = (log_joint - log_marginals).mean()
        rest = (log_marginals - log_p).mean()
        reconstruction = reconstruction_loss(terms)
        loss = reconstruction + self.settings.alpha * information + self.settings.beta * correlation
        loss = loss + self.settings.gamma * rest
        parts = {
            "mutual_information": information,
            "total_correlation": correlation,
            "dimension_wise_kl": rest,
        }
        return loss, {"loss": loss, "reconstruction": reconstruction, "kl": kl_loss(terms), **parts}


def per_latent(distribution: Distribution, z: Float[Tensor, "*S D"]) -> Float[Tensor, "*T D"]:
    """Log-density of every latent under a Gaussian with independent latents."""
    return Normal(distribution.mean, distribution.stddev, validate_args=False).log_prob(z)


def stratified_log_weights(batch: int, images: int, like: Tensor) -> Float[Tensor, "B B"]:
    """Log-weights of the posteriors of a batch in an estimate of q(z), one row per z.

    For a batch of M and N = `images` images, the posterior of the z's image has weight 1/N, every other one
    (N - 1) / (N (M - 1)). The estimate is unbiased, and exact for M = N. This is minibatch stratified
    sampling (Chen et al. 2018, appendix C.2) averaged over the choice of the last sample. Their
    minibatch-weighted sampling (appendix C.1), 1/(NM), makes log q(z) and every log q(z_d) too small by log N
    for M = N.
    """
    if batch == 1:
        return like.new_zeros(1, 1)
    others = -math.inf if images == 1 else math.log((images - 1) / (images * (batch - 1)))
    return like.new_full((batch, batch), others).fill_diagonal_(-math.log(images))


# --- Moments ---


@register("objective", "dip")
class Dip(Objective):
    """The negative ELBO + off_diagonal sum_{i != j} C_ij^2 + diagonal sum_i (C_ii - 1)^2 (Kumar et al. 2018,
    arXiv:1711.00848, equations 6 and 7). C over the batch, divided by B, is in variant 1 the covariance of
    the posterior means, in variant 2 that of the latents, which adds the mean posterior covariance.
    """

    settings: DipConfig
    supports_accumulation = False
    requires = requires_densities(
        {Capability.MOMENTS, Capability.SINGLE_GROUP}, {Capability.STANDARD_NORMAL}, model={Capability.BATCH}
    )

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        (group,) = terms.groups
        centered = group.q.mean - group.q.mean.mean(0)
        covariance = centered.T @ centered / len(centered)
        if self.settings.variant == "2":
            q = group.q
            within = q.covariance_matrix if isinstance(q, MultivariateNormal) else q.variance.diag_embed()
            covariance = covariance + within.mean(0)
        variances = covariance.diagonal()
        off_diagonal = covariance.square().sum() - variances.square().sum()
        diagonal = (variances - 1).square().sum()
        reconstruction, kl = reconstruction_loss(terms), kl_loss(terms)
        loss = reconstruction + kl + self.settings.off_diagonal * off_diagonal
        loss = loss + self.settings.diagonal * diagonal
        parts = {"dip_off_diagonal": off_diagonal, "dip_diagonal": diagonal}
        return loss, {"loss": loss, "reconstruction": reconstruction, "kl": kl, **parts}


@register("objective", "l2")
class L2(Objective):
    """Reconstruction + weight |z|^2 / 2: the regularized autoencoder of Ghosh et al. 2020 (arXiv:1903.12436),
    whose penalty on the decoder is left to weight decay (here of all weights)."""

    settings: L2Config
    # |z|^2 / 2 is the standard normal's -log p(z), but for a constant
    requires = MappingProxyType({"prior": frozenset({Capability.STANDARD_NORMAL})})

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction = reconstruction_loss(terms)
        length = sum_terms([0.5 * group.z.square().sum(-1).mean() for group in terms.groups])
        loss = reconstruction + self.settings.weight * length
        return loss, {"loss": loss, "reconstruction": reconstruction, "l2": length}
