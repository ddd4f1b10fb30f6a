"""Gradient of a convolution's weights in bfloat16: torch's own against a matrix product over patches.

    python benchmarks/convolution.py [rounds]

Batches of 64; the layers of the default networks at 64x64 pixels and of residual blocks. The two run in turn,
and the median is printed.
"""

import statistics
import sys
import time

import torch

from vaekit.models.networks import conv_bf16 as convolution

LAYERS = [
    (3, 32, 64, 4),
    (32, 64, 32, 4),
    (64, 128, 16, 4),
    (128, 256, 8, 4),
    (64, 64, 16, 3),
    (128, 128, 8, 3),
]
"""Input and output channels, size of the larger image, kernel size: 4 with stride 2, or 3 with stride 1."""


def seconds(pixels: int, *arguments: object) -> float:
    convolution.MAX_MATMUL_PIXELS = pixels
    start = time.perf_counter()
    convolution.weight_gradient(*arguments)  # type: ignore[arg-type]
    return time.perf_counter() - start


def main(rounds: int) -> None:
    small = convolution.MAX_MATMUL_PIXELS
    print("layer                      torch   product   used")
    for inputs, outputs, size, kernel in LAYERS:
        stride = kernel - 2
        shapes = (64, inputs, size, size), (64, outputs, size // stride, size // stride)
        images = [
            torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last) for shape in shapes
        ]
        weight = torch.randn(outputs, inputs, kernel, kernel).bfloat16()
        arguments = *images, weight, (stride, stride), (1, 1)
        times = [(seconds(0, *arguments), seconds(1 << 30, *arguments)) for _ in range(rounds + 1)][1:]
        theirs, ours = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        used = "product" if (size // stride) ** 2 <= small else "torch"
        name = f"{inputs:>3} -> {outputs:>3} at {size}x{size}, {kernel}x{kernel}"
        print(f"{name:<24} {theirs:5.1f} ms  {ours:5.1f} ms   {used}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
