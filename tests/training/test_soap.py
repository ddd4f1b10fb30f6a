"""SOAP against Adam, its moments, and a problem whose axes are not those of its weights."""

import pytest
import torch
from torch import Tensor, nn

from vaekit.training.soap import SOAP


def test_what_has_one_axis_is_moved_as_by_adam() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    soap, adam = SOAP([ours], 0.01), torch.optim.Adam([theirs], 0.01, betas=(0.9, 0.99))
    for step in range(30):
        for weight, optimizer in ((ours, soap), (theirs, adam)):
            optimizer.zero_grad()
            ((weight - 0.1 * step) ** 4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_long_axes_are_updated_as_by_adam() -> None:
    ours, theirs = (nn.Parameter(torch.ones(600, 601)) for _ in range(2))
    soap, adam = SOAP([ours], 0.01), torch.optim.Adam([theirs], 0.01, betas=(0.9, 0.99))
    for step in range(3):
        for weight, optimizer in ((ours, soap), (theirs, adam)):
            weight.grad = torch.randn(600, 601, generator=torch.Generator().manual_seed(step))
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(6, 4), (3, 2, 2, 5)], ids=str)
def test_moments_live_in_the_eigenbasis(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    soap = SOAP([weight], 1e-9, every=5)
    stretch = torch.randn(shape[0], shape[0]).double()
    first = torch.zeros(shape).double().flatten(1)
    moments = [torch.zeros(n, n).double() for n in first.shape]
    for _ in range(401):
        gradient = stretch @ torch.randn(shape).double().flatten(1)
        weight.grad = gradient.float().reshape(shape)
        soap.step()
        first.lerp_(gradient, 0.1)
        for axis, square in enumerate((gradient @ gradient.T, gradient.T @ gradient)):
            moments[axis].lerp_(square, 0.05)
    state = soap.state[weight]
    bases = [state[f"basis_{axis}"].double() for axis in (0, 1)]
    for basis, moment, axis in zip(bases, moments, (0, 1), strict=True):
        torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis)).double(), atol=1e-5, rtol=0)
        torch.testing.assert_close(state[f"moment_{axis}"].double(), moment, rtol=1e-4, atol=1e-4)
    turned = bases[0].T @ moments[0] @ bases[0]
    apart = turned - turned.diagonal().diag_embed()
    assert apart.norm() < 0.2 * turned.norm()  # the basis lags behind by the steps since it was turned
    torch.testing.assert_close(bases[0] @ state["exp_avg"].double() @ bases[1].T, first, rtol=1e-4, atol=1e-4)


def test_axes_that_are_not_those_of_the_weights_cost_nothing() -> None:
    """|A W B - C|^2 with condition numbers of 30 in directions all over the place."""

    def tilted(size: int) -> Tensor:
        left, right = (torch.linalg.qr(torch.randn(size, size))[0] for _ in range(2))
        return left @ torch.logspace(0, -1.5, size).diag() @ right

    a, b = tilted(20), tilted(12)
    c = a @ torch.randn(20, 12) @ b
    left = {}
    for name in ("adam", "soap"):
        weight = nn.Parameter(torch.zeros(20, 12))
        adam = torch.optim.Adam([weight], 0.03, betas=(0.9, 0.99))
        optimizer = SOAP([weight], 0.03) if name == "soap" else adam
        for _ in range(400):
            loss = (a @ weight @ b - c).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[name] = loss.item()
    assert left["soap"] < 0.1 * left["adam"]
