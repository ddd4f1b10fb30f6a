"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MAX_AXIS = 512
"""An axis longer than this keeps its basis: rotating it would cost more than the better step is worth."""


class SOAP(Optimizer):
    """SOAP (Vyas et al. 2024, arXiv:2409.11321, algorithm 3); for weights with one axis it is Adam.

    A weight counts as a matrix [out, rest]. The second moments of its gradient along each axis, G G^T and G^T
    G, are averaged with decay `memory`; every `every` steps the bases are moved towards their eigenvectors by
    a power iteration and a QR decomposition. Adam's moments live in these bases, and the first one is rotated
    with them. Matrix products are computed in `precision`; all state is float32.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
        memory: float = 0.95,
        every: int = 20,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.betas, self.memory, self.every, self.precision = betas, memory, every, precision

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"], group["weight_decay"])

    def _update(self, weight: nn.Parameter, gradient: Tensor, lr: float, weight_decay: float) -> None:
        gradient = gradient.flatten(1) if weight.ndim > 1 else gradient
        state, (fast, slow) = self.state[weight], self.betas
        axes = (0, 1) if weight.ndim > 1 else ()
        rotated = [axis for axis in axes if gradient.shape[axis] <= MAX_AXIS]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            for axis in rotated:
                size = gradient.shape[axis]
                state[f"moment_{axis}"] = gradient.new_zeros(size, size)
                state[f"basis_{axis}"] = torch.eye(size, device=gradient.device)
        state["step"] += 1
        step = int(state["step"])
        low = gradient.to(self.precision)
        for axis in rotated:
            square = low @ low.T if axis == 0 else low.T @ low
            state[f"moment_{axis}"].lerp_(square.float(), 1 - self.memory)
            if step % self.every == 1:
                self._rotate_basis(state, axis)
        bases = {axis: state[f"basis_{axis}"].to(self.precision) for axis in rotated}
        first, second = state["exp_avg"], state["exp_avg_sq"]
        projected = _to_bases(low, bases).float()
        first.lerp_(projected, 1 - fast)
        second.mul_(slow).addcmul_(projected, projected, value=1 - slow)
        direction = first / (second / (1 - slow**step)).sqrt_().add_(1e-8)
        inverses = {axis: basis.T for axis, basis in bases.items()}
        direction = _to_bases(direction.to(self.precision), inverses).float()
        if weight_decay:
            weight.mul_(1 - lr * weight_decay)
        weight.add_(direction.view_as(weight), alpha=-lr / (1 - fast**step))

    def _rotate_basis(self, state: dict[str, Tensor], axis: int) -> None:
        """Move a basis towards the eigenvectors of its axis by a power iteration, and rotate the moment."""
        moment, old = state[f"moment_{axis}"], state[f"basis_{axis}"]
        device = torch.device("cpu") if old.device.type == "mps" else old.device  # which has no QR
        new = torch.linalg.qr((moment @ old).to(device))[0].to(old.device).contiguous()
        rotation = {axis: old.T @ new}
        state["exp_avg"] = _to_bases(state["exp_avg"], rotation)
        state[f"basis_{axis}"] = new


def _to_bases(matrix: Tensor, bases: dict[int, Tensor]) -> Tensor:
    """The matrix in other bases of its axes, the columns of `bases`."""
    if 0 in bases:
        matrix = bases[0].T @ matrix
    return matrix @ bases[1] if 1 in bases else matrix
