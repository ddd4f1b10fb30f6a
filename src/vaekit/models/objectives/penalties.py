"""Objectives that add a penalty to the reconstruction or to the evidence lower bound: pure functions of the terms, in
nats per image. All but `l2` look at the whole batch, as a sample of the aggregate posterior q(z) = E_x[q(z|x)]."""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal

from vaekit.config.objectives import DipConfig, L2Config, MmdConfig, TotalCorrelationConfig
from vaekit.models.objectives.elbo import kl_loss, reconstruction_loss, requires_densities, sum_terms
from vaekit.models.registry import Capability, Requirements, register
from vaekit.models.terms import Labels, Objective, Terms

REQUIRES_BATCH = {"model": frozenset({Capability.BATCH})}


# --- Maximum mean discrepancy ----------------------------------------------------------------------------------------


@register("objective", "mmd")
class Mmd(Objective):
    """Reconstruction + weight MMD^2(q(z), p(z)) + beta KL.

    With a posterior without noise the Wasserstein autoencoder WAE-MMD (Tolstikhin et al. 2018, arXiv:1711.01558,
    equation 4 and algorithm 2), else Info-VAE (Zhao et al. 2019, arXiv:1706.02262; in its letters beta = 1 - alpha and
    weight = alpha + lambda - 1; alpha = 1 is their MMD-VAE). The weight's default is this library's.
    """

    settings: MmdConfig
    supports_accumulation = False

    @property
    def requires(self) -> Requirements:
        posterior, prior = frozenset({Capability.SINGLE_GROUP}), frozenset({Capability.REPARAMETERIZED})
        requires = (
            requires_densities(posterior, prior) if self.settings.beta else {"posterior": posterior, "prior": prior}
        )
        return requires | REQUIRES_BATCH

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
    a: Float[Tensor, "B D"],
    b: Float[Tensor, "B D"],
    kernel: Literal["imq", "rbf"] = "imq",
    y: Labels | None = None,
) -> Float[Tensor, ""]:
    """MMD^2 between two samples (Gretton et al. 2012, equation 4): the mean over pairs i != j of
    k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(a_j, b_i).

    With labels, which a and b share, over the pairs of one label: every q(z | y) is held against its own p(z | y). Over
    all pairs their mixtures could be equal with the labels confused.

    Without bias: no point is paired with itself, so that equal distributions give 0 on average whatever the batch, and
    a value may fall a little below 0. A batch without a pair tells nothing of a distribution and costs nothing.
    """
    pairs = ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    if y is not None:
        pairs = pairs & (y[:, None] == y)
    across = similarity(a, b, kernel)
    each = similarity(a, a, kernel) + similarity(b, b, kernel) - across - across.T
    return (each * pairs).sum() / pairs.sum().clamp(min=1)


IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def similarity(a: Float[Tensor, "A D"], b: Float[Tensor, "B D"], kernel: Literal["imq", "rbf"]) -> Float[Tensor, "A B"]:
    """k(a, b), 1 where they meet. Widths go with d^2 of two draws of N(0, I), which is 2 D on average.

    imq: C / (C + d^2), the mean over C = 2 D times each of the authors' scales (Tolstikhin et al. 2018, in
    their code as a sum). rbf: exp(-d^2 / D) (Zhao et al. 2019; the D^2 of their code makes it flat where D is large).
    """
    middle = b.mean(0)  # far from the origin the multiplied-out square would cancel
    a, b = a - middle, b - middle
    squares = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)
    latents = a.shape[1]
    if kernel == "rbf":
        return (-squares / latents).exp()
    widths = [2 * latents * scale for scale in IMQ_SCALES]
    return torch.stack([width / (width + squares) for width in widths]).mean(0)


# --- The KL in three parts -------------------------------------------------------------------------------------------


@register("objective", "total_correlation")
class TotalCorrelation(Objective):
    """Reconstruction + alpha MI + beta TC + gamma dimension-wise KL (Chen et al. 2018, arXiv:1802.04942, equations 2
    and 4), at the samples:

        MI = log q(z|x) - log q(z),   TC = log q(z) - sum_d log q(z_d),   rest = sum_d (log q(z_d) - log p(z_d))

    They add up to log q(z|x) - log p(z), term by term. `images` is N, the number of training images.
    """

    settings: TotalCorrelationConfig
    supports_accumulation = False
    # One p(z) for all images: with a prior for every class the last part would be no divergence
    requires = (
        requires_densities(
            {Capability.DENSITY_ANYWHERE, Capability.FACTORIZED, Capability.SINGLE_GROUP},
            {Capability.FACTORIZED, Capability.STANDARD_NORMAL},
        )
        | REQUIRES_BATCH
    )

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        if self.images < 1:
            raise ValueError("The objective 'total_correlation' is to be given the number of training images.")
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
        loss = (
            reconstruction
            + self.settings.alpha * information
            + self.settings.beta * correlation
            + self.settings.gamma * rest
        )
        return loss, {
            "loss": loss,
            "reconstruction": reconstruction,
            "kl": kl_loss(terms),
            "mutual_information": information,
            "total_correlation": correlation,
            "dimension_wise_kl": rest,
        }


def per_latent(distribution: Distribution, z: Float[Tensor, "*S D"]) -> Float[Tensor, "*T D"]:
    """log-densities of every latent by itself, under a Gaussian with independent latents."""
    log_p: Tensor = Normal(distribution.mean, distribution.stddev, validate_args=False).log_prob(z)
    return log_p


def stratified_log_weights(batch: int, images: int, like: Tensor) -> Float[Tensor, "B B"]:
    """Logarithms of the shares with which the posteriors of a batch of M = `batch` images stand for q(z), a row for
    every z: that of its own image counts 1/N, the others for the rest, (N - 1) / (N (M - 1)) each.

    Unbiased for q(z), and exact for M = N. This is minibatch stratified sampling (Chen et al. 2018, appendix C.2)
    averaged over which of the others is the last; their minibatch-weighted sampling (appendix C.1) has shares
    1/(NM), that is the gradient of 1/M and, for M = N, logarithms of q(z) and of every q(z_d) too small by log N.
    """
    if batch == 1:  # knows of no others
        return like.new_zeros(1, 1)
    others = -math.inf if images == 1 else math.log((images - 1) / (images * (batch - 1)))
    shares = like.new_full((batch, batch), others)
    return shares.fill_diagonal_(-math.log(images))


# --- Moments and lengths ---------------------------------------------------------------------------------------------


@register("objective", "dip")
class Dip(Objective):
    """The negative ELBO + off_diagonal sum_{i != j} C_ij^2 + diagonal sum_i (C_ii - 1)^2 (Kumar et al. 2018,
    arXiv:1711.00848, equations 6 and 7), with C over the batch: variant 1 the covariance of the posterior means,
    variant 2 that of the latents, which has the mean posterior covariance besides.

    The covariance of means is divided by B, not B - 1: it stays defined for a single image.
    """

    settings: DipConfig
    supports_accumulation = False
    requires = (
        requires_densities({Capability.MOMENTS, Capability.SINGLE_GROUP}, {Capability.STANDARD_NORMAL}) | REQUIRES_BATCH
    )  # its covariance is I

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        (group,) = terms.groups
        centred = group.q.mean - group.q.mean.mean(0)
        covariance = centred.T @ centred / len(centred)
        if self.settings.variant == "2":
            covariance = covariance + mean_covariance(group.q)
        variances = covariance.diagonal()
        off_diagonal = covariance.square().sum() - variances.square().sum()
        diagonal = (variances - 1).square().sum()
        reconstruction, kl = reconstruction_loss(terms), kl_loss(terms)
        loss = reconstruction + kl + self.settings.off_diagonal * off_diagonal + self.settings.diagonal * diagonal
        return loss, {
            "loss": loss,
            "reconstruction": reconstruction,
            "kl": kl,
            "dip_off_diagonal": off_diagonal,
            "dip_diagonal": diagonal,
        }


def mean_covariance(q: Distribution) -> Float[Tensor, "D D"]:
    """The covariance of z given an image, averaged over images; diagonal unless q has a whole matrix."""
    within: Tensor = q.covariance_matrix if hasattr(q, "covariance_matrix") else q.variance.diag_embed()
    return within.mean(0)


@register("objective", "l2")
class L2(Objective):
    """Reconstruction + weight |z|^2 / 2, the regularised autoencoder of Ghosh et al. 2020 (arXiv:1903.12436) with the
    decoder left to weight decay, which here pulls on all weights; with weight 0 a plain autoencoder."""

    settings: L2Config
    # |z|^2 / 2 is the standard normal's -log p(z), but for a constant
    requires: ClassVar[Requirements] = {"prior": frozenset({Capability.STANDARD_NORMAL})}

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction = reconstruction_loss(terms)
        length = sum_terms([0.5 * group.z.square().sum(-1).mean() for group in terms.groups])
        loss = reconstruction + self.settings.weight * length
        return loss, {"loss": loss, "reconstruction": reconstruction, "l2": length}
