"""Writes docs/samples.md from the figures of benchmarks/samples.py: python tools/docs/samples.py"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "samples.md"
DATA = {"fashion": ("Fashion-MNIST", "fashion-mnist/"), "cifar": ("CIFAR-10", "cifar10.npz")}
HEAD = """# New images: the fitted prior against the model's own

After training, vaekit fits a density to where the encoder really puts images, and `generate` draws from it where
held-out images say that it is better ([how](mathematics.md#a-prior-fitted-to-the-latents)). What that is worth: each
model is trained with its preset as it is, and new images of either prior are compared with as many test images.
Coverage: the share of the test images near which there is a new one, which depends on their number. KID: a distance,
here times 1,000, lower is better. `+-` is half the 95 % interval. Features: {extractor}, {resize};
no figures to hold against published ones, which are Inception's.
"""
COLUMNS = "| preset | new images from | coverage | KID x 1000 | nats gained |\n|---|---|---|---|---|"
TAIL = """On CIFAR-10, where a short training leaves little but blur, coverage under `classic` and `sigma-vae` does not
rise for certain: no prior could raise it by much.

"Through the model": other test images encoded and decoded again, which is what the decoder gives for a prior
that is right; what is missing there from "other test images", which a perfect model would reach, is blur, and no
prior's matter. **Bold**: better than the model's own prior by more than the 95 % interval of the difference, in which
both meet the same test images.

```console
{commands}
$ python tools/docs/samples.py
```
"""


def main() -> None:
    results = ROOT / "benchmarks" / "results"
    paths = {name: results / f"samples-{name}.json" for name in DATA}
    found = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    one = next(iter(found.values()))
    parts = [HEAD.format(**next(iter(one["presets"].values()))["fidelity"])]
    for name, one in found.items():
        title = DATA[name][0]
        floor = next(iter(one["presets"].values()))["fidelity"]["sets"]["other_held_out"]
        table = [COLUMNS, *(row for preset, judged in one["presets"].items() for row in rows(preset, judged))]
        table.append(line("", "other test images", *cells(floor), ""))
        said = f"{title}: new images from the model's own prior left, from the fitted one right"
        parts += [
            f"## {title}: {one['epochs']} epochs, {compared(one):,} new images\n",
            "\n".join(table),
            f"\n![{said}](pictures/priors-{name}.png)\n",
        ]
    commands = "\n".join(
        f"$ python benchmarks/samples.py {DATA[name][1]} {name} --epochs {one['epochs']} --images {compared(one)}"
        for name, one in found.items()
    )
    PAGE.write_text("\n".join([*parts, TAIL.format(commands=commands)]))
    print(f"Wrote {PAGE}")


def compared(found: dict[str, Any]) -> int:
    return int(next(iter(found["presets"].values()))["fidelity"]["images"])


def rows(preset: str, judged: dict[str, Any]) -> list[str]:
    """The model's own prior, then the fitted one, of which what is better for certain is bold."""
    sets, gap = judged["fidelity"]["sets"], judged["prior_gap"]
    if judged["prior"] is None:
        return [line(f"`{preset}`", "the model's own prior, which none beats", *cells(sets["new"]), "")]
    own, fitted = sets["model_prior"], sets["new"]
    above, through = judged["fidelity"]["fitted_prior_gain"], sets["reconstructed"]
    better = above["coverage"]["low"] > 0, above["kid"]["high"] < 0
    bold = [f"**{cell}**" if sure else cell for cell, sure in zip(cells(fitted), better, strict=True)]
    gain = f"{gap['gain']:.1f} +- {gap['gain_standard_error']:.1f}"
    return [
        line(f"`{preset}`", "the model's own prior", *cells(own), ""),
        line("", judged["prior"], *bold, gain),
        line("", "test images, through the model", *cells(through), ""),
    ]


def cells(figures: dict[str, Any]) -> list[str]:
    """Coverage and KID, with half their intervals."""
    texts = []
    for name, scale, digits in (("coverage", 1, 3), ("kid", 1000, 0)):
        value, low, high = (scale * figures[name][end] for end in ("value", "low", "high"))
        texts.append(f"{value:z.{digits}f} +- {(high - low) / 2:.{digits}f}")
    return texts


def line(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


if __name__ == "__main__":
    main()
