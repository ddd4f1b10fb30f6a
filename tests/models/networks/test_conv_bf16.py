"""Gradients of convolutions, compared with torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vaekit.models.networks.conv_bf16 import Conv2d, ConvTranspose2d, weight_gradient

Pair = tuple[int, int]
GEOMETRIES = [  # size, kernel, stride, padding: sides halved or not, odd and even, below and above 8x8
    ((8, 8), (4, 4), (2, 2), (1, 1)),
    ((9, 7), (4, 3), (2, 1), (1, 1)),
    ((5, 6), (3, 3), (1, 1), (1, 1)),
    ((20, 20), (4, 4), (2, 2), (1, 1)),
    ((4, 4), (1, 1), (1, 1), (0, 0)),
]


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), GEOMETRIES)
def test_weight_gradient_matches_torch(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> None:
    large = torch.randn(3, 2, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(5, 2, *kernel, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(large, weight, stride=stride, padding=padding)
    small = torch.randn_like(out)
    (expected,) = torch.autograd.grad((out * small).sum(), weight)
    torch.testing.assert_close(weight_gradient(large, small, weight.detach(), stride, padding), expected)


@pytest.mark.parametrize("size", [(9, 8), (34, 33)])
@pytest.mark.parametrize("make", [nn.Conv2d, nn.ConvTranspose2d])
def test_bfloat16_gradients_are_close_to_float32(make: type[nn.Module], size: tuple[int, int]) -> None:
    layer_class = {nn.Conv2d: Conv2d, nn.ConvTranspose2d: ConvTranspose2d}[make]
    extra = {"output_padding": (1, 0)} if make is nn.ConvTranspose2d else {}
    layer, reference = layer_class(6, 10, (4, 3), (2, 1), 1, **extra), make(6, 10, (4, 3), (2, 1), 1, **extra)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(16, 6, *size)

    def compute_gradients(layer: nn.Module, precise: bool) -> list[torch.Tensor]:
        x_copy = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            out = layer(x_copy)
        assert out.dtype == (torch.float32 if precise else torch.bfloat16)
        (out.float() * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
        return [x_copy.grad, *(p.grad for p in layer.parameters())]

    expected = compute_gradients(reference, precise=True)
    for actual, exact in zip(compute_gradients(layer, precise=False), expected, strict=True):
        assert actual.dtype == torch.float32
        assert (actual - exact).norm() < 0.01 * exact.norm()
    layer.zero_grad()
    torch.testing.assert_close(compute_gradients(layer, precise=True), expected)
