"""Write docs/samples.md from benchmarks/results; with --check only say whether it is up to date.

python tools/docs/samples.py
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "samples.md"
DATA = {"fashion": ("Fashion-MNIST", "fashion-mnist/"), "cifar": ("CIFAR-10", "cifar10.npz")}
HEAD = """# Sample quality with the fitted prior

After training, vaekit fits a density to the latents of the training images, and `generate` samples from it if
it is better on held-out images ([details](mathematics.md#the-fitted-prior)). This page shows how
much that gains: each model is trained with its unchanged preset, and new images from either prior are
compared with equally many test images. Coverage is the fraction of test images with a new image nearby; it
depends on their number. KID is a distance, here times 1,000; lower is better. `+-` is half the 95 % interval.
Features: {extractor}, {resize}; the values are not comparable with published ones, which use Inception.
"""
COLUMNS = "| preset | new images from | coverage | KID x 1000 | nats gained |\n|---|---|---|---|---|"
TAIL = """\
On CIFAR-10, where a short training yields mostly blur, coverage does not change significantly for `classic`
and `sigma-vae`: no prior could raise it by much.

"Reconstructed test images" are other test images encoded and decoded again: what the decoder yields with a
perfect prior. A perfect model would reach the values of "other test images"; the remaining gap is decoder
blur, which no prior can fix. **Bold**: better than the model's own prior by more than the 95 % interval of
the difference, computed on the same test images.

```console
{commands}
$ python tools/docs/samples.py
```
"""


def page() -> str:
    paths = {name: RESULTS / f"samples-{name}.json" for name in DATA}
    results = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    parts = [HEAD.format(**first_fidelity(next(iter(results.values()))))]
    for name, result in results.items():
        title = DATA[name][0]
        table = [COLUMNS]
        for preset, evaluation in result["presets"].items():
            table += rows(preset, evaluation)
        others = first_fidelity(result)["sets"]["other_held_out"]
        table.append(line("", "other test images", *cells(others), ""))
        caption = f"{title}: new images from the model's own prior (left) and from the fitted prior (right)"
        parts += [
            f"## {title}: {result['epochs']} epochs, {image_count(result):,} new images\n",
            "\n".join(table),
            f"\n![{caption}](pictures/priors-{name}.png)\n",
        ]
    commands = "\n".join(command(name, result) for name, result in results.items())
    return "\n".join([*parts, TAIL.format(commands=commands)])


def command(name: str, result: dict[str, Any]) -> str:
    options = f"--epochs {result['epochs']} --images {image_count(result)}"
    return f"$ python benchmarks/samples.py {DATA[name][1]} {name} {options}"


def first_fidelity(result: dict[str, Any]) -> dict[str, Any]:
    """Sample-quality metrics of the first preset; what does not depend on the model is the same in all."""
    fidelity: dict[str, Any] = next(iter(result["presets"].values()))["fidelity"]
    return fidelity


def image_count(result: dict[str, Any]) -> int:
    return int(first_fidelity(result)["images"])


def rows(preset: str, evaluation: dict[str, Any]) -> list[str]:
    """The model's own prior, the fitted one with significant gains in bold, and reconstructed test images."""
    sets, gap = evaluation["fidelity"]["sets"], evaluation["prior_gap"]
    if evaluation["prior"] is None:
        name = "the model's own prior (no fitted one is better)"
        return [line(f"`{preset}`", name, *cells(sets["new"]), "")]
    model_prior, fitted = sets["model_prior"], sets["new"]
    above, through = evaluation["fidelity"]["fitted_prior_gain"], sets["reconstructed"]
    better = above["coverage"]["low"] > 0, above["kid"]["high"] < 0
    bold = [
        f"**{cell}**" if significant else cell
        for cell, significant in zip(cells(fitted), better, strict=True)
    ]
    gain = f"{gap['gain']:.1f} +- {gap['gain_standard_error']:.1f}"
    return [
        line(f"`{preset}`", "the model's own prior", *cells(model_prior), ""),
        line("", evaluation["prior"], *bold, gain),
        line("", "reconstructed test images", *cells(through), ""),
    ]


def cells(metrics: dict[str, Any]) -> list[str]:
    """Coverage and KID, with half their intervals."""
    texts = []
    for name, scale, digits in (("coverage", 1, 3), ("kid", 1000, 0)):
        value, low, high = (scale * metrics[name][end] for end in ("value", "low", "high"))
        texts.append(f"{value:z.{digits}f} +- {(high - low) / 2:.{digits}f}")
    return texts


def line(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def main() -> None:
    text = page()
    if sys.argv[1:] == ["--check"]:
        sys.exit(PAGE.read_text() != text and f"{PAGE} is not up to date: run python tools/docs/samples.py")
    PAGE.write_text(text)
    print(f"Wrote {PAGE}")


if __name__ == "__main__":
    main()
