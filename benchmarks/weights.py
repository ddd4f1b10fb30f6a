"""What importance-weighted evaluation costs beside its bare arithmetic: the decoder, and log p(x | z), at the same z.

    python benchmarks/weights.py           # Burda's network, 784-200-200-50; a minute
    python benchmarks/weights.py 20 1000   # rounds, importance samples

Both take turns on the same batches; the median of the rounds' ratios is printed. Bare: z is there already, as many at a
time as evaluation takes; the decoder makes logits of it, and pixels' cross-entropies are summed. Evaluation: encoder,
draws of z, decoder, likelihood, prior and posterior densities, the weights' running sums, the effective sample size.
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.build import build
from vaekit.judging.likelihood import BATCH, VALUES, weigh
from vaekit.resolve import resolve


def main() -> None:
    rounds, samples = (int(word) for word in (sys.argv[1:] + ["10", "1000"][len(sys.argv) - 1 :])[:2])
    model = build(resolve(preset="burda-1"), (1, 28, 28))[0].eval()
    x = torch.rand(BATCH, 1, 28, 28).round()
    at_once = max(1, VALUES["cpu"] // x.numel())
    z = torch.randn(at_once * BATCH, model.latents)

    @torch.no_grad()
    def bare() -> Tensor:
        found = []
        for start in range(0, samples, at_once):
            count = min(at_once, samples - start)
            logits = model.decoder(z[: count * BATCH]).unflatten(0, (count, BATCH))
            found.append(
                -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum((2, 3, 4))
            )
        return torch.cat(found)

    def evaluation() -> Tensor:
        return weigh(model, x, None, samples).bounds[samples]

    def seconds(work: object) -> float:
        begun = time.perf_counter()
        work()  # type: ignore[operator]
        return time.perf_counter() - begun

    for work in (bare, evaluation):
        work()
    times = [(seconds(bare), seconds(evaluation)) for _ in range(rounds)]
    ratio = statistics.median(ours / theirs for theirs, ours in times)
    ours = statistics.median(ours for _, ours in times)
    print(f"{ratio:.2f} times the bare decoder and log-likelihood ({torch.get_num_threads()} threads)")
    print(f"{10_000 / BATCH * ours / 60:.1f} minutes for 10,000 images with {samples:,} samples each")


if __name__ == "__main__":
    main()
