"""torch's convolutions with a faster gradient of the weights in bfloat16 on CPUs.

Where the smaller image has at most 8x8 pixels, torch takes up to four times as long for it as the equivalent
matrix product with patches of the larger image as rows; with more pixels, writing the patches costs more than
it gains (`benchmarks/convolution.py`). A transposed convolution is the same product with the images' roles
exchanged, and torch is faster in that form too.
"""

from collections.abc import Callable
from typing import Any, cast

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
        only_weight = [False, True, False]
        gradients = torch.ops.aten.convolution_backward(
            small, large, weight, None, stride, padding, [1, 1], False, [0, 0], 1, only_weight
        )
        return cast(Tensor, gradients[1])
    (high, wide), (inputs, kh, kw) = padding, weight.shape[1:]
    padded = F.pad(large.permute(0, 2, 3, 1), (0, 0, wide, wide, high, high)).contiguous()
    count, (h, w), (by_image, by_row, by_pixel, _) = len(large), small.shape[2:], padded.stride()
    patches = padded.as_strided(
        (count, h, w, kh, kw, inputs),
        (by_image, by_row * stride[0], by_pixel * stride[1], by_row, by_pixel, 1),
    ).reshape(count * h * w, -1)
    rows = small.permute(0, 2, 3, 1).reshape(len(patches), -1)
    weight_grad: Tensor = rows.t() @ patches
    return weight_grad.reshape(-1, kh, kw, inputs).permute(0, 3, 1, 2)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (stride, padding), grad = ctx.saved_tensors, ctx.geometry, grads[0]
        x_grad = None
        if ctx.needs_input_grad[0]:
            only_input = [True, False, False]
            x_grad = torch.ops.aten.convolution_backward(
                grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, only_input
            )[0]
        return (
            x_grad,
            weight_gradient(x, grad, weight, stride, padding),
            _bias_gradient(ctx, grad),
            None,
            None,
        )


_conv = cast(Callable[..., Tensor], _Conv.apply)


class _ConvTranspose(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Any,
        padding: Any,
        output_padding: Any,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding
        return F.conv_transpose2d(x, weight, bias, stride, padding, output_padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (stride, padding), grad = ctx.saved_tensors, ctx.geometry, grads[0]
        x_grad = F.conv2d(grad, weight, None, stride, padding) if ctx.needs_input_grad[0] else None
        return (
            x_grad,
            weight_gradient(grad, x, weight, stride, padding),
            _bias_gradient(ctx, grad),
            None,
            None,
            None,
        )


_conv_transpose = cast(Callable[..., Tensor], _ConvTranspose.apply)


def _bias_gradient(ctx: Any, grad: Tensor) -> Tensor | None:
    return grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None


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


class Conv2d(nn.Conv2d):
    def forward(self, input: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
        if not _use_matmul_gradient(self, input):
            return super().forward(input)
        bias = None if self.bias is None else self.bias.bfloat16()
        return _conv(input.bfloat16(), self.weight.bfloat16(), bias, self.stride, self.padding)


class ConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, input: Float[Tensor, "B I h w"], output_size: Any = None) -> Float[Tensor, "B O H W"]:
        if output_size is not None or not _use_matmul_gradient(self, input):
            return super().forward(input, output_size)
        bias = None if self.bias is None else self.bias.bfloat16()
        geometry = self.stride, self.padding, self.output_padding
        return _conv_transpose(input.bfloat16(), self.weight.bfloat16(), bias, *geometry)
