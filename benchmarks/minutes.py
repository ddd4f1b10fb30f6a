"""Quality over time: NLL of MNIST after 1, 5 and 10 minutes of training, with vaekit and with Pythae's
default VAE.

    python benchmarks/minutes.py mnist/    # half an hour on an idle machine; Pythae if it is installed

The protocol is that of `paper_table/run.py`: the first 50,000 images train, dynamically binarized; the test
images are binarized once; a Bernoulli decoder; NLL by importance sampling in float32. `classic` and `laplace`
keep their networks, optimizers and settings (precision included), with the protocol's likelihood; pixels are
drawn at every step. Pythae: its VAE and trainer with all defaults (a dense network of 512 units, 10 latents,
Adam at 1e-4, batches of 64); pixels are drawn before every epoch, outside the measured time. Minutes count
training (vaekit's with validation), not the start or what is written at the end. The three train in turn,
from mark to mark.
"""

import io
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

import vaekit
from baselines import has_pythae
from vaekit.bench.measure import machine
from vaekit.config.data import DataConfig
from vaekit.data.packs.pack import open_pack

MARKS = (1.0, 5.0, 10.0)
"""Minutes of training after which models are evaluated."""
TEST_IMAGES = 1000
SAMPLES = 500
"""Importance samples per image."""
HERE = Path(__file__).parent
Mark = dict[str, float]


def make_mark(nats: np.ndarray, minutes: float, epochs: int) -> Mark:
    error = float(nats.std(ddof=1) / math.sqrt(len(nats)))
    return {"nll": -float(nats.mean()), "standard_error": error, "minutes": minutes, "epochs": epochs}


def ours(preset: str, mnist: Path, test: np.ndarray) -> Iterator[Mark]:
    """Train to each mark in turn, and evaluate the weights to use at that point."""
    with tempfile.TemporaryDirectory() as folder:
        out, spent = Path(folder) / "run", 0.0
        for mark in MARKS:
            while spent < mark:
                model = vaekit.train(
                    mnist,
                    out=out,
                    resume=True,
                    preset=preset,
                    likelihood="binarized",
                    validation="last:10000",
                    epochs=100_000,
                    compile="off",
                    max_minutes=mark - spent,
                    report=False,
                    quiet=True,
                )
                spent = float(model.history["seconds"].sum()) / 60
            yield make_mark(model.log_likelihood(test, samples=SAMPLES), spent, len(model.history))


def pythae(images: np.ndarray, test: np.ndarray) -> Iterator[Mark]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        from pythae import models
        from pythae.data.datasets import BaseDataset
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

    x = torch.from_numpy(images).reshape(-1, 1, 28, 28) / 255
    drawn = torch.empty_like(x)
    settings = models.VAEConfig(input_dim=(1, 28, 28), reconstruction_loss="bce")
    with tempfile.TemporaryDirectory() as folder:
        trainer = BaseTrainer(
            model=models.VAE(settings),
            train_dataset=BaseDataset(drawn, torch.zeros(len(x))),
            training_config=BaseTrainerConfig(output_dir=folder),
        )
        trainer.prepare_training()
        spent, epoch = 0.0, 0
        for mark in MARKS:
            while spent < 60 * mark:
                torch.bernoulli(x, out=drawn)
                start = time.perf_counter()
                with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                    trainer.train_step(epoch + 1)
                spent, epoch = spent + time.perf_counter() - start, epoch + 1
            yield make_mark(importance_log_likelihood(trainer.model, test), spent / 60, epoch)


@torch.no_grad()
def importance_log_likelihood(model: Any, test: np.ndarray) -> np.ndarray:
    """log p(x) of a model with a Gaussian encoder and sigmoid outputs, by importance sampling."""
    model.eval()
    nats = []
    for x in torch.from_numpy(test).reshape(-1, 1, 28, 28).div(255).split(20):
        encoded = model.encoder(x)
        q = torch.distributions.Normal(encoded.embedding, (0.5 * encoded.log_covariance).exp())
        z = q.sample((SAMPLES,))
        p = model.decoder(z.flatten(0, 1)).reconstruction.reshape(SAMPLES, *x.shape)
        log_px = -F.binary_cross_entropy(p, x.expand_as(p), reduction="none").sum((2, 3, 4))
        log_w = log_px + (torch.distributions.Normal(0, 1).log_prob(z) - q.log_prob(z)).sum(-1)
        nats.append(log_w.double().logsumexp(0) - math.log(SAMPLES))
    return torch.cat(nats).numpy()


def draw(models: dict[str, Any]) -> None:
    import matplotlib
    import seaborn as sns

    matplotlib.use("Agg")
    rows = [{"model": name, **mark} for name, model in models.items() for mark in model["nll"].values()]
    sns.set_theme(style="whitegrid", palette="colorblind", font_scale=0.9)
    axes = sns.lineplot(
        pd.DataFrame(rows), x="minutes", y="nll", hue="model", style="model", markers=True, dashes=False
    )
    axes.set(xlabel="minutes of training on 2 cores", ylabel="test NLL, nats per image (lower is better)")
    axes.set_xlim(left=0)
    axes.set_title("MNIST, dynamically binarized: quality over time", loc="left")
    sns.despine()
    axes.figure.set_size_inches(7, 4)
    axes.figure.savefig(HERE.parent / "docs" / "pictures" / "minutes.png", dpi=120, bbox_inches="tight")


def main(mnist: Path) -> None:
    pack = open_pack(mnist, DataConfig(validation="last:10000"), quiet=True)
    gray = np.asarray(pack.images[pack.splits["test"]])[..., 0]
    white = np.random.RandomState(777).rand(len(gray), 784) < gray.reshape(-1, 784) / 255
    test = (255 * white[:TEST_IMAGES]).astype(np.uint8).reshape(-1, 28, 28)
    train = np.asarray(pack.images[pack.splits["train"]])[..., 0]
    trainings = {preset: ours(preset, mnist, test) for preset in ("classic", "laplace")}
    if has_pythae():
        trainings = {"Pythae, its default VAE": pythae(train, test), **trainings}
    else:
        print("Pythae is not installed")
    models: dict[str, Any] = {name: {"nll": {}} for name in trainings}
    for minutes in MARKS:
        for name, training in trainings.items():
            models[name]["nll"][f"{minutes:g}"] = mark = next(training)
            print(name, mark, flush=True)
    about = f"Test NLL in nats per image: {TEST_IMAGES:,} MNIST images binarized once, "
    about += f"{SAMPLES} importance samples; in parentheses, "
    about += "minutes of training at the end of the evaluated epoch."
    results = {"about": about, "machine": machine(), "models": models}
    (HERE / "results" / "minutes.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(models)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
