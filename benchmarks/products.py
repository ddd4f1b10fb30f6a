"""Cost of memory in the matrix products of 784-400-20 in bfloat16: each product alone, and after 10 MB have
passed through the cache, as weights, gradients and Adam's averages do at every step. Prints medians in
microseconds; all cores.

    python benchmarks/products.py [rounds]
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch


def microseconds(product: Callable[[], object]) -> float:
    start = time.perf_counter()
    product()
    return 1e6 * (time.perf_counter() - start)


def main(rounds: int) -> None:
    x, grad = torch.randn(128, 784).bfloat16(), torch.randn(128, 400).bfloat16()
    weight, bias = torch.randn(400, 784).bfloat16(), torch.randn(400).bfloat16()
    step = torch.zeros(10_000_000 // 4)
    products: dict[str, Callable[[], object]] = {
        "forward": lambda: torch.addmm(bias, x, weight.t()),
        "gradient of the input": lambda: grad @ weight,
        "gradient of the weights": lambda: grad.t() @ x,
    }
    print("product                  alone   after 10 MB")
    for name, product in products.items():
        alone: list[float] = []
        after: list[float] = []
        for _ in range(rounds):
            product()
            alone.append(microseconds(product))
            step.add_(1)
            after.append(microseconds(product))
        print(f"{name:<24} {statistics.median(alone):5.0f}   {statistics.median(after):11.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 400)
