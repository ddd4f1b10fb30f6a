"""Optimizers."""

import torch
from torch import Tensor, nn

from vaekit.config.training import TrainingConfig
from vaekit.training.optimizers import make_optimizer


def after_gradients(kind: str, gradients: Tensor) -> Tensor:
    """Where [0, ..., 0] is after steps with these gradients [steps, size], after each."""
    parameter = nn.Parameter(torch.zeros(gradients.shape[1]))
    optimizer = make_optimizer([parameter], TrainingConfig(optimizer=kind, learning_rate=1e-2))
    places = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        places.append(parameter.detach().clone())
    return torch.stack(places)


def test_stable_adam_is_adam_while_gradients_keep_their_size() -> None:
    signs = torch.randint(0, 2, (50, 1000), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    assert torch.equal(after_gradients("stable_adam", 3 * signs), after_gradients("adam", 3 * signs))


def test_stable_adam_moves_as_usual_after_one_large_gradient() -> None:
    usual = torch.randn(60, 1000, generator=torch.Generator().manual_seed(0))
    large = usual.clone()
    large[50] *= 1000
    ratios = {}
    for kind in ("adam", "stable_adam"):
        moved = [
            (places[-1] - places[49]).norm() for places in (after_gradients(kind, g) for g in (large, usual))
        ]
        ratios[kind] = (moved[0] / moved[1]).item()
    assert ratios["adam"] > 2
    assert ratios["stable_adam"] < 1.05
