"""A generative model of the latents: flow matching, trained after the autoencoder.

The latents z of training images, draws of q(z | x) in units of their standard deviation, are reached from
noise e along straight lines x_t = (1 - t) e + t z. A network learns the velocity E[z - e | x_t] by least
squares (Lipman et al. 2023, arXiv:2210.02747, equation 23; Liu et al. 2023, arXiv:2209.03003, equation 1).
The ordinary differential equation with that velocity carries noise at t = 0 to new latents at t = 1.
"""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaekit.models.networks.velocity import Mlp, UNet
from vaekit.models.terms import Labels

STEPS = 20
"""Steps in which the equation is solved."""
GUIDANCE = 2.0
"""Guidance by the group. With 3 colours are too strong, and the coverage is lower. By conditions there is
none unless it is given, since it exceeds numbers: squares of brightness 200 have 222 with 2, 201 without."""
LABEL_DROPOUT = 0.1
"""Share of training latents whose group and class, or conditions, are withheld (Ho & Salimans 2022,
arXiv:2207.12598, algorithm 1), and with classes as large a share of which only the group is."""
MAX_GROUPS = 64
"""Groups of similar latents, at most; every class has at least one."""
HUTCHINSON_PROBES = 1
"""Random directions by which the divergence of the network is estimated."""
EXACT_LATENTS = 16
"""Latents up to which the divergence is computed exactly."""


class FlowMatching(nn.Module):
    """The model of the latents z, flat [N, D], with the interface of a `FittedPrior`.

    Args:
        metadata: "name", "kind", "latents", "classes" and "settings", in which are "shape", that of the
            latents of one image, "channels" and "blocks", and for latents of images with conditions
            "conditions", the numbers in the vector of each; there are no groups then.
    """

    graph_safe = supports_accumulation = True
    shares: Float[Tensor, " Y"]
    class_of_group: Int[Tensor, " G"]
    group_shares: Float[Tensor, " G"]
    loc: Float[Tensor, " D"]
    scale: Float[Tensor, " D"]

    def __init__(self, metadata: dict[str, Any]) -> None:
        super().__init__()
        self.metadata, settings = metadata, metadata["settings"]
        self.latents, self.classes = metadata["latents"], metadata["classes"]
        shape, sizes = tuple(settings["shape"]), (settings["channels"], settings["blocks"])
        make = UNet if len(shape) == 3 else Mlp
        groups = MAX_GROUPS + self.classes
        self.conditions: int = settings.get("conditions", 0)
        labels = self.conditions or self.classes + groups
        self.network: nn.Module = make(shape, labels, *sizes, vector=self.conditions > 0)
        self.register_buffer("shares", torch.full((self.classes,), 1 / self.classes))
        # Until `set_groups`, every class is a group
        self.register_buffer("class_of_group", torch.arange(groups).clamp(max=self.classes - 1))
        self.register_buffer("group_shares", (torch.arange(groups) < self.classes).float())
        self.register_buffer("loc", torch.zeros(self.latents))
        self.register_buffer("scale", torch.ones(self.latents))
        self.precision = torch.float32
        self.steps, self.guidance = STEPS, 1.0 if self.conditions else GUIDANCE

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    # --- Training ---

    def set_units(self, loc: Float[Tensor, "N D"], variance: Float[Tensor, "N D"]) -> None:
        """Take mean and standard deviation of every channel from the means and variances of q(z | x) of
        training images."""
        channels = self.metadata["settings"]["shape"][0]
        loc, variance = loc.unflatten(1, (channels, -1)), variance.unflatten(1, (channels, -1))
        repeats = self.latents // channels
        self.loc.copy_(loc.mean((0, 2)).repeat_interleave(repeats))
        spread = (loc.var((0, 2), correction=0) + variance.mean((0, 2))).sqrt()
        self.scale.copy_(spread.clamp(min=1e-6).repeat_interleave(repeats))

    def set_groups(self, classes: Int[Tensor, " G"], counts: Int[Tensor, " G"]) -> None:
        """Take groups of training images, by the class of each and its number of images."""
        self.class_of_group.fill_(self.classes - 1)[: len(classes)] = classes
        self.group_shares.zero_()[: len(counts)] = counts.to(self.group_shares)
        totals = torch.zeros_like(self.shares).index_add_(0, self.class_of_group, self.group_shares)
        self.shares.copy_(totals / totals.sum())
        self.group_shares /= totals.clamp(min=1)[self.class_of_group]

    def terms(
        self, x: Float[Tensor, "B _"], y: Labels | None = None, samples: int = 1
    ) -> Float[Tensor, " B"]:
        """The squared error of the velocity, mean over latents, for images of groups or conditions y of which
        x holds the means and log-variances of q(z | x). Draws of q, noise and times are drawn now; in
        training some of the groups or conditions are withheld.

        Times are sigmoids of a standard normal, which the middle of the way gets most of (Esser et al. 2024,
        arXiv:2403.03206, section 3.1), one in each of B strata.
        """
        loc, log_variance = x.chunk(2, dim=1)
        z = loc + (0.5 * log_variance).exp() * torch.randn_like(loc)
        z = (z - self.loc) / self.scale
        strata = torch.arange(len(z), device=z.device) + torch.rand(len(z), device=z.device)
        t = torch.sigmoid(torch.special.ndtri((strata / len(z)).clamp(1e-6, 1 - 1e-6)))
        label = None if y is None else self._training_label(y)
        noise = torch.randn_like(z)
        velocity = self.velocity(torch.lerp(noise, z, t[:, None]), t, label)
        return (velocity - (z - noise)).square().mean(1)

    def _training_label(self, y: Labels) -> Tensor:
        """The label of the network for groups or conditions, some of which are withheld in training."""
        label = self.label_of_conditions(y) if self.conditions else self.classes + y
        if not self.training:
            return label
        chance = torch.rand(len(y), device=y.device)
        if self.conditions:
            return label * (chance >= LABEL_DROPOUT)[:, None]
        if self.classes > 1:
            label = torch.where(chance < 2 * LABEL_DROPOUT, self.class_of_group[y], label)
        everything = self.classes + len(self.group_shares)
        return torch.where(chance < LABEL_DROPOUT, everything, label)

    def label_of_conditions(self, y: Float[Tensor, "B K"]) -> Float[Tensor, "B L"]:
        """The label of the network for conditions: a 1 says that they are given."""
        return F.pad(y, (0, 1), value=1.0)

    def velocity(
        self, x: Float[Tensor, "B D"], t: Float[Tensor, " B"], label: Labels | None = None
    ) -> Float[Tensor, "B D"]:
        """In standardized latents, given labels: classes, then groups; or conditions. Without labels that of
        all images."""
        with torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32):
            return self.network(x, t, label).float()

    # --- Use ---

    @property
    def groups(self) -> int:
        """Groups that new latents are drawn from."""
        return int((self.group_shares > 0).sum())

    @property
    def has_guidance(self) -> bool:
        """Whether there are groups or conditions that `guidance` strengthens."""
        return self.groups > 1 or self.conditions > 0

    def guided(self, x: Tensor, t: Tensor, label: Labels | None, guidance: float) -> Float[Tensor, "B D"]:
        """The velocity with classifier-free guidance: that of all images, and `guidance` times the
        difference of the group or the conditions from it (Ho & Salimans 2022, equation 6, whose w is
        `guidance` - 1)."""
        velocity = self.velocity(x, t, label)
        if guidance == 1 or label is None:
            return velocity
        everything = self.velocity(x, t, None)
        return everything + guidance * (velocity - everything)

    @torch.no_grad()
    def sample_prior(self, n: int, y: Labels | None = None, temperature: float = 1.0) -> Float[Tensor, "n D"]:
        """`n` samples of p(z | y), from noise scaled by `temperature`; without `y` of classes by frequency,
        or of p(z) if images have conditions.

        The group is drawn by its share of the class.
        """
        label = self._sampled_label(n, y)
        return self.solve(temperature * torch.randn(n, self.latents, device=self.loc.device), label)

    @torch.no_grad()
    def solve(self, noise: Float[Tensor, "n D"], label: Labels | None) -> Float[Tensor, "n D"]:
        """The latents that noise is carried to, given labels of the network.

        The equation is solved in `steps` steps by the two-step Adams-Bashforth method, which needs one
        velocity a step; the first step is Heun's (Hairer, Norsett & Wanner 1993, sections II.1 and III.1).
        """
        guidance = self.guidance if self.has_guidance else 1.0
        n, x = len(noise), noise
        times = torch.linspace(0, 1, self.steps + 1, device=x.device)
        earlier = None
        for start, end in pairwise(times):
            now = self.guided(x, start.expand(n), label, guidance)
            if earlier is None:
                later = self.guided(x + (end - start) * now, end.expand(n), label, guidance)
                mean = (now + later) / 2
            else:
                mean = 1.5 * now - 0.5 * earlier
            x, earlier = x + (end - start) * mean, now
        return self.loc + self.scale * x

    def _sampled_label(self, n: int, y: Labels | None) -> Tensor | None:
        """The label of the network for new latents: groups by their shares of the class, or conditions."""
        if self.conditions:
            return None if y is None else self.label_of_conditions(y)
        if y is None:
            y = torch.multinomial(self.shares, n, replacement=True)
        return self.label_of_group(y, torch.multinomial(self.group_weights(y), 1)[:, 0])

    def group_weights(self, y: Int[Tensor, " N"]) -> Float[Tensor, "N G"]:
        """The shares of the groups in classes; all 1 for a class without training images."""
        shares = self.group_shares * (self.class_of_group == y[:, None])
        return shares + (shares.sum(1, keepdim=True) == 0)

    def label_of_group(self, y: Int[Tensor, " N"], group: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """The label of the network for a group of class y, or for the class if it has no such group."""
        known = (self.class_of_group[group] == y) & (self.group_shares[group] > 0)
        return torch.where(known, self.classes + group, y)

    def log_prior(self, z: Float[Tensor, "N D"], y: Labels | None = None) -> Float[Tensor, " N"]:
        """log p(z | y), or without `y` log p(z), by integrating the divergence of the velocity along the path
        from z back to noise (Chen et al. 2018, arXiv:1806.07366, equation 8).

        The divergence is exact for up to 16 latents, else an unbiased estimate from random signs (Hutchinson
        1990), which are drawn now.
        """
        x = (z - self.loc) / self.scale
        total = -self.scale.log().sum().expand(len(z))
        signs = self._probes(x)
        times = torch.linspace(1, 0, self.steps + 1, device=x.device)
        for start, end in pairwise(times):
            before, rate = self._velocity_and_divergence(x, start.expand(len(x)), y, signs)
            after, later = self._velocity_and_divergence(
                x + (end - start) * before, end.expand(len(x)), y, signs
            )
            x = x + (end - start) * (before + after) / 2
            # d log p / dt = -div v
            total = total + (end - start) * (rate + later) / 2
        return total - 0.5 * (x.square() + math.log(2 * math.pi)).sum(1)

    def _probes(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "P N D"]:
        if self.latents <= EXACT_LATENTS:
            return math.sqrt(self.latents) * torch.eye(self.latents, device=x.device)[:, None].expand(
                -1, len(x), -1
            )
        return torch.randint(0, 2, (HUTCHINSON_PROBES, *x.shape), device=x.device) * 2.0 - 1

    def _velocity_and_divergence(
        self,
        x: Float[Tensor, "N D"],
        t: Float[Tensor, " N"],
        y: Labels | None,
        probes: Float[Tensor, "P N D"],
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, " N"]]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            label = y if self.classes > 1 else None
            if self.conditions and y is not None:
                label = self.label_of_conditions(y)
            learned = self.network(x, t, label).float()
            products = [
                torch.autograd.grad(learned, x, probe, retain_graph=True)[0].mul(probe).sum(1)
                for probe in probes
            ]
        return learned.detach(), torch.stack(products).mean(0)


class VelocityError:
    """The loss of flow matching, as an objective: the mean of `FlowMatching.terms`."""

    samples, schedule_end, supports_accumulation = 1, 0.0, True

    def __call__(
        self, terms: Float[Tensor, " B"], epoch: float = math.inf
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss = terms.mean()
        return loss, {"loss": loss}
