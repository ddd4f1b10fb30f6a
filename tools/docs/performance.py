"""Write docs/performance.md from benchmarks/results; with --check only say whether it is up to date.

python tools/docs/performance.py
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from vaekit.bench.measure import BenchResult, format_speed

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
TRAININGS = ("mlp", "conv", "resnet")
OTHERS = ("folder-first", "folder-later", "generation", "evaluation", "scaling")
HEAD = """# Performance

How fast vaekit trains, where the time goes and what was optimized, compared with a bare PyTorch loop, a
script around a DataLoader and [Pythae](https://pypi.org/project/pythae/). Measured on {cores} cores of a
shared {processor}, with torch {torch} and no GPU, except in [On a GPU](#on-a-gpu).

The speed of this machine varies by half within minutes. Everything compared therefore runs in turn in one
process, for {rounds} rounds, and only runs of the same round are compared: tables give the median of the
rounds' ratios and, in parentheses, the smallest and the largest. Images per second are medians by themselves,
so their quotients differ from these ratios.

```console
$ vaekit bench mlp                      # vaekit and the bare loop, on your machine
$ python benchmarks/baselines.py mlp    # also the DataLoader script and Pythae
```

- `bare loop`: the same network and optimizer on float32 tensors in memory, without shuffling, EMA, seeds or
  metrics.
- `tuned process`: the same with vaekit's process settings: memory is not returned to the system and denormals
  are flushed to zero ([Optimizations](#optimizations)). The C library does not undo all of its memory
  settings, so the other runs in the process gain a little, too.
- `script with DataLoader`: PIL images are converted to tensors one by one in two worker processes.
  `ImageFolder and DataLoader` does the same for a folder of JPEGs, which it reads like torchvision's
  ImageFolder.
- `Pythae`: its BaseTrainer with the same encoder and decoder.
- `bare decoder`: the decoder alone, on latents in memory.
- 784-400-20: a dense network for images of 784 pixels, with 400 hidden units and 20 latents.
- float32, TF32 and bfloat16: numbers of 32 bits, of 32 bits of which 19 are used, and of 16 bits. Computation
  is in float32 unless stated otherwise.
- EMA: the moving average of the weights, which is validated and saved. NLL: the negative log-likelihood of
  test images; lower is better.
- vaekit's validation, which the others lack, uses one image in these tables.
"""
ABOUT_TARGETS = """\
784-400-20 stays below twice the bare loop because of memory: weights, gradients and Adam's state, 10 MB in
all, pass through the cache at every step and evict the matrices, so that products in bfloat16 take 1.3 to 1.6
times as long (`python benchmarks/products.py`). The first epoch from JPEGs consists of decoding, resizing and
training, each on all cores: images are decoded at a half, a quarter or an eighth of their size, but at no
less than twice the target size, because less would cost sharpness.
"""
ABOUT_SHARES = """\
Shares of a whole `vaekit train --preset classic` with these networks and images, at the precision that it
chooses (bfloat16 for `conv` and `resnet`), on the training thread. `files at the end` are those still to be
written after the last step, `data` is gathering images, `logging` is summing metrics. `mlp` trained for 20
epochs, the others for 2: files weigh more in runs this short than in usual ones.
"""
ABOUT_START = """\
A `vaekit train` with its images in the cache, as in every second run, takes its first step after {:.2f} times
the time needed to import torch, build an Adam and take a step (the median of the rounds' ratios).
"""
ABOUT_QUALITY = """{about} `+-` is the standard error.
Training images are binarized at every step; presets `classic` and `laplace` with `--likelihood binarized`.

![Negative log-likelihood by minutes](pictures/minutes.png)
"""
ABOUT_GPU = """\
Measured on one {gpu} with torch {torch}. `busy` is the share of the time in which a kernel runs; the rest are
gaps between launches. `peak` is how much of the GPU's arithmetic is used: the multiplications of the network
alone, relative to a product of random 8192x8192 matrices in the same type (in TFLOP/s: {peaks}). Each
training ran by itself, and the median of three repeats is given. torch uses TF32 for convolutions by default,
so compare the bare loop and Pythae of `conv` and `resnet` with `tf32`; vaekit's `32` is float32 throughout.
"""
WHOLE_RUN = """\
`vaekit train fashion-mnist/ --preset classic --epochs 50` takes {seconds:.0f} s from start to pictures. An
epoch of training and validation takes {epoch:.2f} s; the rest is starting the process, reading the images and
fitting the prior.
"""
OPTIMIZATIONS = """## Optimizations

- **Denormals are flushed to zero.** Where a gradient has become exactly zero, Adam's running means shrink by
  a tenth per step until they are denormal (below 1.2e-38), and processors take many times as long to compute
  with such numbers. Every VAE has units and latents whose gradients become zero: the bare loop of
  `mlp` slows down by a quarter after some hundred steps, so the tuned process is the faster one in the table
  above.
- **Memory is not returned to the system.** By default, Linux's C library returns blocks of many megabytes at
  every step, and the system clears their pages at the next allocation.
- **Threads that wait for others sleep sooner**, after 10,000 turns of a loop. By default, OpenMP takes
  thirty times as many, which costs a command several times its time where another program uses the same
  cores: two trainings of `classic` with 2 threads each had 220 images/s each, and have 1,090
  (`GOMP_SPINCOUNT=300000 python benchmarks/together.py`, which is OpenMP's default, and without it). A single
  training is as fast as before within the noise of the measurement. `GOMP_SPINCOUNT` or `OMP_WAIT_POLICY` in
  the environment override it.
- **One thread where another program uses the cores.** If the load of the machine is 0.5 or more when a
  training begins and `--threads` is not given, a trial compares one thread with one per core, and one is used
  if it is at least 1.5 times as fast. The first lines say so, and the run keeps the number when it is
  resumed.
- **When running two trainings at once, give each a share of the cores** with `--threads`: it is faster still
  ([table](#running-two-trainings)).
- **bfloat16 for convolutions** (`--precision auto`), where the processor has units for it; weights,
  posterior, KL, likelihood, averages and optimizer state stay in float32. The gradient of a convolution's
  weights is computed as a product over patches, because oneDNN, torch's library for it, takes up to four
  times as long as the arithmetic (`python benchmarks/convolution.py`). The validation loss after 5 epochs of
  Fashion-MNIST is 239.97 nats per image, compared with 239.60 and 240.10 for two seeds in float32 (`vaekit
  train fashion-mnist/ --epochs 5 --precision bf16`, and `--precision 32`, `--precision 32 --seed 1`).
- **Channels last**: images and weights use the memory format in which convolutions are fastest. Cross-entropy
  and its gradient take half the passes over memory, and activations work in place.
- **The EMA** is updated every sixteenth step if it averages over 256 steps or more.
- **Pictures, graph and checkpoints** are drawn and written by a background thread. At most 3 % of the time
  goes into redrawing the graph and as much into checkpoints; those written at the end come on top. The first
  graph loads seaborn, which takes some two seconds of a core and slows down short epochs meanwhile. Copying
  weights for a checkpoint and decoding pictures remain on the training thread, which shows in short runs of
  large networks.
- **Compilation** (`--compile auto`) is tried in runs long enough to benefit, and used if it is at least 5 %
  faster. Compiled or not, a run draws the same noise. In compiled code, the backward pass of ReLU uses the
  sign of its output; torch's own uses a Boolean mask, which compiled code would write value by value.
- **Batch size** (`--batch-size auto`): doubled, starting from 32 images, as long as that brings at least 10 %
  more images per second. A batch that does not fit in memory is processed in micro-batches, as one step with
  the gradient of the whole batch; objectives that need the whole batch at once raise an error instead.
- **On an NVIDIA GPU** the images stay on the device as uint8 and are gathered, converted and augmented there.
  Nothing waits for the device within an epoch: the loss is checked once it has arrived, and noise, learning
  rate and Adam's step count are on the device. After three ordinary steps, forward pass, backward pass and
  Adam (but not other optimizers) are captured as a CUDA graph, a list of GPU tasks that one call launches; so
  are validation and the fit of the flow prior. Models with convolutions compute in bfloat16, others in TF32
  (`--precision auto`). A model with custom modules is not captured, because they may change from call to
  call.
"""
ABOUT_TOGETHER = """Medians of interleaved rounds.
"""
PRECISIONS = {"32": "float32", "tf32": "TF32", "bf16": "bfloat16"}


def spread(result: BenchResult, name: str, other: str) -> str:
    """The median of the rounds' ratios, the smallest and the largest."""
    if name == other:
        return "1"
    ratios = result.ratios(name, other)
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(result: BenchResult, others: list[str]) -> list[str]:
    rows = ["| | images/s | " + " | ".join(f"relative to {other}" for other in others) + " |"]
    rows.append("|---|---:|" + "---:|" * len(others))
    for name in result.rounds:
        cells = [name, format_speed(result.speed(name)), *(spread(result, name, other) for other in others)]
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, ""]


def training(name: str, result: BenchResult) -> list[str]:
    """A table of a workload that trains."""
    others = [one for one in (result.limit, "bare loop, tuned process", "Pythae") if one in result.rounds]
    return [f"**{name}**: {result.about}.", "", *table(result, others)]


def other_workload(result: BenchResult) -> list[str]:
    others = dict.fromkeys(
        one for one in (result.limit, "ImageFolder and DataLoader") if one in result.rounds
    )
    return [f"{result.about[0].upper()}{result.about[1:]}:", "", *table(result, list(others))]


def shares(by_network: dict[str, dict[str, float]]) -> list[str]:
    parts = list(next(iter(by_network.values())))
    rows = ["| | " + " | ".join(parts) + " |", "|---|" + "---:|" * len(parts)]
    for name, values in by_network.items():
        rows.append(f"| {name} | " + " | ".join(f"{values[part]:.1%}" for part in parts) + " |")
    return [ABOUT_SHARES, *rows, ""]


def targets(results: dict[str, BenchResult], memory: dict[str, float] | None) -> list[str]:
    """Targets, and what was measured."""
    mlp, conv, first, later = (results[name] for name in ("mlp", "conv", "folder-first", "folder-later"))
    evaluation, loader, float32 = results["evaluation"], "ImageFolder and DataLoader", "vaekit, float32"
    rows = [
        ("MLP, float32, vs. bare loop", 0.97, mlp, float32, mlp.limit),
        ("MLP, fastest setting, vs. bare float32 loop", 2.0, mlp, mlp.fastest("vaekit"), mlp.limit),
        ("MLP, fastest setting, vs. Pythae", 2.5, mlp, mlp.fastest("vaekit"), "Pythae"),
        ("conv 64x64x3, float32, vs. bare loop", 0.97, conv, float32, conv.limit),
        (
            "conv 64x64x3, fastest setting, vs. bare float32 loop",
            2.0,
            conv,
            conv.fastest("vaekit"),
            conv.limit,
        ),
        (f"JPEG folder, first epoch (cold cache), vs. {loader}", 3.0, first, first.fastest("vaekit"), loader),
        ("JPEG folder, later epochs, vs. the same", 10.0, later, later.fastest("vaekit"), loader),
        ("alternative to the row above: float32 vs. bare loop", 0.97, later, float32, later.limit),
        (
            "importance-weighted evaluation, vs. decoder and likelihood",
            0.8,
            evaluation,
            "vaekit",
            evaluation.limit,
        ),
    ]
    lines = ["| relative images/s | at least | measured |", "|---|---|---|"]
    for name, target, result, ours, other in rows:
        cell = spread(result, ours, other) if other in result.rounds else "not measured"
        if other in result.rounds and result.ratio(ours, other) < target:
            cell += ", missed"
        lines.append(f"| {name} | {target:g} | {cell} |")
    growth = 10 / results["scaling"].ratio("ten times as many", "few images")
    lines += ["", "| | at most | measured |", "|---|---|---|"]
    lines.append(f"| time of an epoch of ten times as many images, relative | 10.3 | {growth:.2f} |")
    if memory:
        ratio = memory["1000000"] / memory["10000"]
        lines.append(f"| private memory (Linux's RssAnon), 1,000,000 vs. 10,000 images | 1.1 | {ratio:.2f} |")
    return [*lines, "", ABOUT_TARGETS]


def start(times: dict[str, list[float]]) -> list[str]:
    rows = ["| | seconds |", "|---|---|"]
    rows += [f"| `{name}` | {statistics.median(values):.2f} |" for name, values in times.items()]
    step, first = list(times.values())[-2:]
    ratio = statistics.median(b / a for a, b in zip(step, first, strict=True))
    return [*rows, "", ABOUT_START.format(ratio)]


def quality(minutes: dict[str, Any]) -> list[str]:
    marks = list(next(iter(minutes["models"].values()))["nll"])
    rows = ["| minutes of training | " + " | ".join(marks) + " |", "|---|" + "---|" * len(marks)]
    for name, model in minutes["models"].items():
        cells = [
            f"{mark['nll']:.2f} +- {mark['standard_error']:.2f} ({mark['minutes']:.1f})"
            for mark in model["nll"].values()
        ]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*rows, "", ABOUT_QUALITY.format(about=minutes["about"])]


def gpu(results: dict[str, Any]) -> list[str]:
    machine, peak, run = results["machine"], results["peak"], results["run"]
    peaks = ", ".join(f"{name} {value:,.0f}" for name, value in peak.items())
    rows = [
        ABOUT_GPU.format(gpu=machine["gpu"], torch=machine["torch"], peaks=peaks),
        "| | images/s | relative to the bare loop | relative to Pythae | busy | peak |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for network, loops in results["networks"].items():
        bare = loops["bare loop"]["images_per_second"]
        other = loops.get("Pythae", {}).get("images_per_second", float("nan"))
        for name, one in loops.items():
            speed = one["images_per_second"]
            precision = PRECISIONS.get(
                name.removeprefix("vaekit, "), "float32" if network == "mlp" else "TF32"
            )
            cells = [f"{network}: {name}", f"{speed:,.0f}", f"{speed / bare:.2f}", f"{speed / other:.2f}"]
            cells += [f"{one['busy']:.0%}", f"{one['tflops'] / peak[precision]:.1%}"]
            rows.append(f"| {' | '.join(cells)} |")
    return [*rows, "", WHOLE_RUN.format(seconds=run["seconds"], epoch=float(run["last"]["seconds"]))]


def together(results: dict[str, dict[str, float]]) -> list[str]:
    setups = list(next(iter(results.values())))
    rows = ["| images/s of each training | " + " | ".join(setups) + " |", "|---|" + "---:|" * len(setups)]
    rows += [
        f"| {name} | " + " | ".join(map(format_speed, speeds.values())) + " |"
        for name, speeds in results.items()
    ]
    return [*rows, "", ABOUT_TOGETHER]


def commands(rounds: int) -> list[str]:
    """The commands that measured what is on the page."""
    lines = [f"python benchmarks/baselines.py --rounds {rounds} --out benchmarks/results/bench.json"]
    for name, command in {
        "startup": "python benchmarks/startup.py",
        "together": "python benchmarks/together.py",
        "memory": "python benchmarks/memory.py",
        "minutes": "python benchmarks/minutes.py mnist/",
        "gpu": "python benchmarks/gpu.py fashion-mnist/ --out benchmarks/results/gpu.json",
    }.items():
        if read(name):
            lines.append(command)
    lines.append(
        "python benchmarks/pictures.py 20    # the cost of pictures, graph and checkpoints in README"
    )
    lines.append("python tools/docs/performance.py")
    return ["```console", *(f"$ {line}" for line in lines), "```", ""]


def read(name: str) -> Any:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def page() -> str:
    bench = read("bench")
    workloads = bench["workloads"]
    results = {
        name: BenchResult(one["about"], one["limit"], one["rounds"]) for name, one in workloads.items()
    }
    rounds = len(next(iter(results["mlp"].rounds.values())))
    parts = [HEAD.format(**bench["machine"], rounds=rounds)]
    parts += ["## Targets\n", *targets(results, read("memory")), "## Training\n"]
    for name in TRAININGS:
        parts += training(name, results[name])
    parts += ["The images of `conv` and `resnet` are synthetic photographs.\n", "## Where the time goes\n"]
    parts += shares({name: workloads[name]["shares"] for name in TRAININGS})
    parts += ["## Folders, generation and evaluation\n"]
    for name in OTHERS:
        parts += other_workload(results[name])
    parts += ["## Startup\n", *start(read("startup"))]
    if minutes := read("minutes"):
        parts += ["## Quality per minute\n", *quality(minutes)]
    if on_gpu := read("gpu"):
        parts += ["## On a GPU\n", *gpu(on_gpu)]
    parts += [OPTIMIZATIONS]
    if both := read("together"):
        parts += ["## Running two trainings\n", *together(both)]
    return "\n".join([*parts, "## Reproducing the measurements\n", *commands(rounds)])


def main() -> None:
    text = page()
    if sys.argv[1:] == ["--check"]:
        sys.exit(
            PAGE.read_text() != text and f"{PAGE} is not up to date: run python tools/docs/performance.py"
        )
    PAGE.write_text(text)
    print(f"Wrote {PAGE}")


if __name__ == "__main__":
    main()
