"""Writes docs/performance.md from the figures in benchmarks/results: python tools/docs/performance.py [--check]"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from vaekit.bench.measure import BenchResult, format_speed

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
HEAD = """# How fast it is

Where the time of a training goes, what was done about it, and how fast that is beside a bare loop, a script around a
DataLoader, and [Pythae](https://pypi.org/project/pythae/). Measured on {cores} cores of a shared {processor}; torch
{torch}, without a GPU but for the section that names one.

This machine is noisy: its speed changes by half within minutes. So what is compared takes turns in one process,
{rounds} rounds, and what counts is the ratio of two that ran within one round: tables give the median of the rounds'
ratios and, in brackets, the smallest and the largest. The images per second are medians by themselves, of other
moments: dividing them gives something else.

```console
$ vaekit bench mlp                      # vaekit and the bare loop, on your machine
$ python benchmarks/baselines.py mlp    # and with the DataLoader and Pythae
```

- `bare loop`: the same network and optimizer on float32 tensors that are in memory already, and nothing else: no
  shuffled order, no average of the weights, no seeds, no metrics.
- `tuned process`: the same where memory is kept and the smallest numbers are zero, as vaekit has it (below). The C
  library does not forget all that it was told about memory, so that the other turns of the process gain a little too.
- `script with DataLoader`: what people write: a PIL image made into a tensor, one by one, in two worker processes.
  `ImageFolder and DataLoader` is the same on a folder of JPEGs, as torchvision's ImageFolder reads it.
- Pythae is its BaseTrainer with the same encoder and decoder, `bare decoder` the decoder on latents that are in memory.
- 784-400-20 is a dense network for images of 784 pixels, with 400 hidden units and 20 latents.
- float32, TF32 and bfloat16 are numbers of 32 bits, of 32 bits of which 19 are read, and of 16. Where nothing else is
  said, arithmetic is float32.
- EMA is the moving average of the weights, which is what is validated and kept. NLL is the negative log-likelihood of
  test images: lower is better.
- vaekit's validation, which the others do not have, is of one image in these tables.
"""
TRAININGS = ("mlp", "conv", "resnet")
WHY = """## What was done about it

- **Denormal numbers are zero.** Adam's running means of a weight whose gradient has become exactly zero shrink by a
  tenth a step until they are denormal, below 1.2e-38, and there processors take many times as long for each. Units and
  latents fall silent in every VAE; the bare loop of `mlp` slows down by a quarter after some hundred steps, so that
  the one whose process is settled is the faster one in the table above.
- **Memory is kept.** Linux's C library gives blocks of many megabytes back to the system at every step, which clears
  them anew.
- **Two trainings at once want `--threads`**, a share of the cores each. Threads wait for each other in a busy loop, and
  where two trainings share the cores, each for threads that the other keeps from running (last table). Threads that
  give way sooner help two, and were left out again because they slow one down
  (`GOMP_SPINCOUNT=10000 python benchmarks/together.py` has them).
- **bfloat16 for convolutions** (`--precision auto`), where the processor has units for it; weights, posterior, KL,
  likelihood, averages and the optimizer's state stay in float32. The gradient of a convolution's weights, for which
  oneDNN, torch's library for it, takes up to four times as long as the arithmetic, is a product over patches
  (`python benchmarks/convolution.py`).
  The validation loss after 5 epochs of Fashion-MNIST: 239.97 nats per image against 239.60 and 240.10 of two seeds in
  float32 (`vaekit train fashion-mnist/ --epochs 5 --precision bf16`, and `--precision 32`, `--precision 32 --seed 1`).
- **Channels last** in memory, for images and weights, as convolutions like it; the cross-entropy and its slope in half
  the passes over memory; activations in place.
- **The average of the weights** is moved every sixteenth step once it reaches back over 256 steps or more.
- **Pictures, graph and checkpoints** are drawn and written by a thread of their own; at most 3 % of the time goes into
  redrawing the graph and as much into writing checkpoints, the last ones, at the end, on top. The first graph loads
  seaborn, some two seconds of a core, in which short epochs slow down. Copies for a checkpoint and the decoding of
  pictures are left to the thread that trains: in short runs of large networks they weigh.
- **Compiling** (`--compile auto`) is tried where a run is long enough to earn it back, and kept where it is a twentieth
  faster or more. Compiled or not, a run draws the same noise. In compiled code the backward pass of ReLU goes by the
  sign of its output: torch's own goes by a mask of true and false, which the compiler's code writes value by value.
- **Batches** (`--batch-size auto`): from 32 images on doubled as long as that makes at least a tenth more images a
  second. A batch of any size that does not fit in the memory goes through in parts, as one step with the gradient of
  the whole; objectives that look at all of a batch refuse that in a sentence.
- **On an NVIDIA GPU** the images stay on the device as uint8 and are gathered, converted and augmented there, and
  nothing waits for the device within an epoch: the loss is looked at when it has arrived, noise, learning rate and
  Adam's count of steps are on the device. After three ordinary steps forward pass, backward pass and Adam (other
  optimizers stay outside) are recorded as a CUDA graph, a list of the GPU's tasks that one call begins; so are
  validation, and the fit of the flow among the priors. Models with convolutions compute in bfloat16, others in TF32
  (`--precision auto`). A model with modules of your own is not recorded: they may change from call to call.
"""


def spread(found: BenchResult, name: str, other: str) -> str:
    if name == other:
        return "1"
    ratios = found.ratios(name, other)
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(found: BenchResult, others: list[str]) -> list[str]:
    rows = ["| | images/s | " + " | ".join(f"times {other}" for other in others) + " |"]
    rows.append("|---|---:|" + "---:|" * len(others))
    for one in found.rounds:
        cells = [one, format_speed(found.speed(one)), *(spread(found, one, other) for other in others)]
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, ""]


def training(name: str, found: BenchResult) -> list[str]:
    """A table of a workload that trains."""
    others = [one for one in (found.limit, "bare loop, tuned process", "Pythae") if one in found.rounds]
    return [f"**{name}**: {found.about}.", "", *table(found, others)]


def beside(found: BenchResult) -> list[str]:
    others = dict.fromkeys(one for one in (found.limit, "ImageFolder and DataLoader") if one in found.rounds)
    return [f"{found.about[0].upper()}{found.about[1:]}:", "", *table(found, list(others))]


def together(found: dict[str, dict[str, float]]) -> list[str]:
    names = list(next(iter(found.values())))
    rows = ["| images/s of each training | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    rows += [f"| {name} | " + " | ".join(map(format_speed, one.values())) + " |" for name, one in found.items()]
    said = (
        "Medians of rounds in which the four ways take turns. Why one thread of `classic` is slower alone than beside\n"
    )
    return [*rows, "", f"{said}another, in both measurements of it, is not known.\n"]


def shares(found: dict[str, dict[str, float]]) -> list[str]:
    names = list(next(iter(found.values())))
    rows = ["| share of | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for name, one in found.items():
        rows.append(f"| {name} | " + " | ".join(f"{one[part]:.1%}" for part in names) + " |")
    return [*rows, ""]


def targets(found: dict[str, BenchResult], memory: dict[str, float] | None) -> list[str]:
    """What was to be reached, and what was."""
    mlp, conv, later, scaling = found["mlp"], found["conv"], found["folder-later"], found["scaling"]
    loader, weighing = "ImageFolder and DataLoader", found["evaluation"]
    quickest = {name: one.fastest("vaekit") for name, one in found.items() if name != "scaling"}
    rows = [
        ("MLP, float32, against the bare loop", 0.97, mlp, "vaekit, float32", mlp.limit),
        ("MLP, quickest precision and mode, against the bare float32 loop", 2.0, mlp, quickest["mlp"], mlp.limit),
        ("MLP, quickest, against Pythae", 2.5, mlp, quickest["mlp"], "Pythae"),
        ("conv 64x64x3, float32, against the bare loop", 0.97, conv, "vaekit, float32", conv.limit),
        ("conv 64x64x3, quickest, against the bare float32 loop", 2.0, conv, quickest["conv"], conv.limit),
        (
            "JPEG folder, first epoch from cold, against ImageFolder and DataLoader",
            3.0,
            found["folder-first"],
            quickest["folder-first"],
            loader,
        ),
        ("JPEG folder, later epochs, against the same", 10.0, later, quickest["folder-later"], loader),
        ("instead of the line above: float32 against the bare loop", 0.97, later, "vaekit, float32", later.limit),
        ("importance-weighted evaluation, against decoder and likelihood", 0.8, weighing, "vaekit", weighing.limit),
    ]
    lines = ["| in times the images a second | at least | found |", "|---|---|---|"]
    for name, least, one, ours, other in rows:
        missed = " missed" * (one.ratio(ours, other) < least) if other in one.rounds else ""
        cell = f"{spread(one, ours, other)}{missed}" if other in one.rounds else "not measured"
        lines.append(f"| {name} | {least:g} | {cell} |")
    growth = 10 / scaling.ratio("ten times as many", "few images")
    lines += ["", "| | at most | found |", "|---|---|---|"]
    lines.append(f"| time for ten times as many images, in times that for so many | 10.3 | {growth:.2f} |")
    if memory:
        ratio = memory["1000000"] / memory["10000"]
        lines.append(f"| private memory (Linux's RssAnon), 1,000,000 images against 10,000 | 1.1 | {ratio:.2f} |")
    return [*lines, "", REACH]


REACH = """What keeps 784-400-20 from twice the bare loop is memory: weights, gradients and what Adam keeps of them,
10 MB, pass through the cache at every step and turn out the matrices, so that products in bfloat16 take 1.3 to 1.6
times as long (`python benchmarks/products.py`). The first epoch from JPEGs is decoding and resizing, then training,
both on all cores: an image is read at a half, a quarter or an eighth of its size, but at no less than twice the size
wanted, since less would cost sharpness.
"""


GPU = """On one {gpu}, torch {torch}. `busy`: the share of the time in which a kernel runs; the rest are gaps between
launches. `peak`: how much of the GPU's arithmetic is used, by the multiplications of the network alone, against what a
product of random 8192x8192 matrices reaches in the same type (a trillion operations a second: {peaks}). Each was
trained by itself, one after the other, the median of three turns. torch takes convolutions in TF32 unless told
otherwise, so the bare loop and Pythae of `conv` and `resnet` are to be compared with `tf32`; vaekit's `32` is float32
throughout.
"""
RUN = """`vaekit train fashion-mnist/ --preset classic --epochs 50` from start to pictures: {seconds:.0f} s. An epoch of
training and validation takes {epoch:.2f} s; the rest is the start of the process, the reading of the images and the
fitted prior.
"""
PRECISE = {"32": "float32", "tf32": "TF32", "bf16": "bfloat16"}


def gpu(seen: dict[str, Any]) -> list[str]:
    """What was measured on a GPU."""
    on, peak, run = seen["machine"], seen["peak"], seen["run"]
    peaks = ", ".join(f"{name} {value:,.0f}" for name, value in peak.items())
    rows = [
        GPU.format(gpu=on["gpu"], torch=on["torch"], peaks=peaks),
        "| | images/s | times the bare loop | times Pythae | busy | peak |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for network, baselines in seen["networks"].items():
        bare = baselines["bare loop"]["images_per_second"]
        other = baselines.get("Pythae", {}).get("images_per_second", float("nan"))
        for name, one in baselines.items():
            speed = one["images_per_second"]
            compute_dtype = PRECISE.get(name.removeprefix("vaekit, "), "float32" if network == "mlp" else "TF32")
            cells = [f"{network}: {name}", f"{speed:,.0f}", f"{speed / bare:.2f}", f"{speed / other:.2f}"]
            cells += [f"{one['busy']:.0%}", f"{one['tflops'] / peak[compute_dtype]:.1%}"]
            rows.append(f"| {' | '.join(cells)} |")
    return [*rows, "", RUN.format(seconds=run["seconds"], epoch=float(run["last"]["seconds"]))]


def start(seen: dict[str, list[float]]) -> list[str]:
    step, first = list(seen.values())[-2:]
    ratio = statistics.median(b / a for a, b in zip(step, first, strict=True))
    rows = ["| to start | seconds |", "|---|---|"]
    rows += [f"| `{name}` | {statistics.median(times):.2f} |" for name, times in seen.items()]
    said = (
        "A `vaekit train` that finds its images packed, as a second one does, takes its first step after {:.2f} times\n"
        "what importing torch, an Adam and a step take (the median of the rounds' ratios)."
    )
    return [*rows, "", said.format(ratio), ""]


def read(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def page() -> str:
    bench, memory, minutes = read("bench"), read("memory"), read("minutes")
    found = {name: BenchResult(one["about"], one["limit"], one["rounds"]) for name, one in bench["workloads"].items()}
    rounds = len(next(iter(found["mlp"].rounds.values())))
    parts = [HEAD.format(**bench["machine"], rounds=rounds), "## What was to be reached\n", *targets(found, memory)]
    parts += ["## Training\n"]
    for name in TRAININGS:
        parts += training(name, found[name])
    parts += ["Images of `conv` and `resnet` are made-up photographs.\n", "## Where the time goes\n"]
    parts += [
        "Of a whole `vaekit train --preset classic` with these networks and images, in the arithmetic that it finds"
    ]
    parts += ["(bfloat16 for `conv` and `resnet`), on the thread that trains; `files at the end` are those still to be"]
    parts += ["written when the last step is taken, `data` the gathering of images, `logging` sums for the log."]
    parts += ["Of `mlp` 20 epochs, of the others 2: files weigh more in so short a run than in a usual one.\n"]
    parts += shares({name: bench["workloads"][name]["shares"] for name in TRAININGS})
    parts += ["## From a folder, and with a model\n"]
    for name in ("folder-first", "folder-later", "generation", "evaluation", "scaling"):
        parts += beside(found[name])
    parts += ["## To start\n", *start(read("startup"))]
    if minutes:
        parts += ["## Quality per minute\n", *quality(minutes)]
    if device := read("gpu"):
        parts += ["## On a GPU\n", *gpu(device)]
    parts += [WHY]
    if both := read("together"):
        parts += ["## Two at once\n", *together(both)]
    parts += ["## Measured with\n", "```console"]
    parts += [
        f"$ python benchmarks/baselines.py --rounds {rounds} --out benchmarks/results/bench.json",
        "$ python benchmarks/startup.py",
    ]
    parts += ["$ python benchmarks/together.py"] * bool(both)
    parts += ["$ python benchmarks/memory.py"] * bool(memory)
    parts += ["$ python benchmarks/pictures.py 20         # README's cost of pictures, graph and checkpoints"]
    parts += ["$ python benchmarks/minutes.py mnist/"] * bool(minutes)
    parts += ["$ python benchmarks/gpu.py fashion-mnist/ --out benchmarks/results/gpu.json"] * bool(device)
    return "\n".join([*parts, "$ python tools/docs/performance.py", "```", ""])


def quality(minutes: dict[str, Any]) -> list[str]:
    marks = list(next(iter(minutes["models"].values()))["nll"])
    rows = ["| NLL after minutes | " + " | ".join(marks) + " |", "|---|" + "---|" * len(marks)]
    for name, one in minutes["models"].items():
        cells = [
            f"{mark['nll']:.2f} +- {mark['standard_error']:.2f} ({mark['minutes']:.1f})" for mark in one["nll"].values()
        ]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    about = f"{minutes['about']} `+-` is the standard error.\n"
    about += "The test images are drawn once, training draws its pixels anew; presets `classic` and `best` with\n"
    about += "`--likelihood binarized`.\n"
    return [*rows, "", about, "![Negative log-likelihood by minutes](pictures/minutes.png)\n"]


def main() -> None:
    text = page()
    if sys.argv[1:] == ["--check"]:
        sys.exit(PAGE.read_text() != text and f"{PAGE} is not up to date: python tools/docs/performance.py")
    PAGE.write_text(text)
    print(f"Wrote {PAGE}")


if __name__ == "__main__":
    main()
