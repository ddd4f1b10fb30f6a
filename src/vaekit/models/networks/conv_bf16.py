"""torch's convolutions with a faster gradient of the weights in bfloat16 on CPUs.

Where the smaller image has at most 8x8 pixels, torch takes up to four times as long for it as the equivalent
matrix product with patches of the larger image as rows; with more pixels, writing the patches costs more than
it gains (`benchmarks/convolution.py`). A transposed convolution is the same product with the images' roles
exchanged, and torch is faster in that form too.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MAX_MATMUL_PIXELS = 64
"""Pixels of the smaller image up to which the matrix product is faster."""


def weight_gradient(
    large: Float[Tensor, "B I H W"],
    small: Float[Tensor, "B O h w"],
    weight: Float[Tensor, "O I kh kw"],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Float[Tensor, "O I kh kw"]:
    """The derivative of sum(small * conv(large, weight)) by the weights.

    This is the sum over images and positions p, q of small[b, o, p, q] * (patch of large at (p, q))[i, k, l].
    """
    if small.shape[2] * small.shape[3] > MAX_MATMUL_PIXELS:
        return _convolution_backward(small, large, weight, stride, padding, [False, True, False])[1]
    (high, wide), (inputs, kh, kw) = padding, weight.shape[1:]
    padded = F.pad(large.permute(0, 2, 3, 1), (0, 0, wide, wide, high, high)).contiguous()
    count, (h, w), (by_image, by_row, by_pixel, _) = len(large), small.shape[2:], padded.stride()
    patches = padded.as_strided(
        (count, h, w, kh, kw, inputs),
        (by_image, by_row * stride[0], by_pixel * stride[1], by_row, by_pixel, 1),
    ).reshape(count * h * w, -1)
    rows = small.permute(0, 2, 3, 1).reshape(len(patches), -1)
    return (rows.t() @ patches).reshape(-1, kh, kw, inputs).permute(0, 3, 1, 2)


class _Conv(torch.autograd.Function):
    """A convolution, or with an output padding a transposed one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        stride, padding, output_padding = geometry
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, output_padding is not None
        if output_padding is None:
            return F.conv2d(x, weight, bias, stride, padding)
        return F.conv_transpose2d(x, weight, bias, stride, padding, output_padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (stride, padding, transposed), grad = ctx.saved_tensors, ctx.geometry, grads[0]
        large, small = (grad, x) if transposed else (x, grad)
        x_grad = None
        if ctx.needs_input_grad[0] and transposed:
            x_grad = F.conv2d(grad, weight, None, stride, padding)
        elif ctx.needs_input_grad[0]:
            x_grad = _convolution_backward(grad, x, weight, stride, padding, [True, False, False])[0]
        bias_grad = grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return x_grad, weight_gradient(large, small, weight, stride, padding), bias_grad, None, None, None


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, which: list[bool]
) -> Any:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, which
    )


def _use_matmul_gradient(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    """Whether gradients are computed in bfloat16 on a CPU, by a layer without groups or dilation."""
    return (
        x.device.type == "cpu"
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def _conv(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, output_padding: Any) -> Tensor:
    bias = None if layer.bias is None else layer.bias.bfloat16()
    geometry = layer.stride, layer.padding, output_padding
    return _Conv.apply(x.bfloat16(), layer.weight.bfloat16(), bias, *geometry)


class Conv2d(nn.Conv2d):
    def forward(self, input: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        if not _use_matmul_gradient(self, input):
            return super().forward(input)
        return _conv(self, input, None)


class ConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, input: Float[Tensor, "B I h w"], output_size: Any = None) -> Float[Tensor, "B O H W"]:
        if output_size is not None or not _use_matmul_gradient(self, input):
            return super().forward(input, output_size)
        return _conv(self, input, self.output_padding)
