"""Learning rate, moving average and validation, against numbers worked out by hand."""

import math
import resource
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from command import MLP, rings
from vaekit.config.objectives import ElboConfig
from vaekit.config.overrides import resolve
from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import open_pack
from vaekit.models.builder import build
from vaekit.models.objectives.elbo import Elbo
from vaekit.models.terms import Terms
from vaekit.training.artifacts import is_picture_epoch
from vaekit.training.ema import EMA
from vaekit.training.loop import Progress, evaluate, train
from vaekit.training.optimizers import learning_rate
from vaekit.training.plan import make_plan
from vaekit.training.request import TrainRequest
from vaekit.training.step import TrainStep
from vaekit.utils.device import flush_denormals, keep_freed_memory


def test_learning_rate_ramps_up_and_decays_along_a_cosine() -> None:
    settings = resolve({"learning_rate": 0.1, "ramp": 4, "schedule": "cosine"}).training
    rates = [learning_rate(settings, step, 100) for step in (0, 1, 3, 25, 50, 100)]
    cosine = [0.5 * (1 + np.cos(np.pi * step / 100)) for step in (0, 1, 3, 25, 50, 100)]
    expected = [0.025, 0.05 * cosine[1], 0.1 * cosine[2], 0.1 * cosine[3], 0.05, 0.0]
    assert rates == pytest.approx(expected, abs=1e-12)
    short = resolve({"learning_rate": 0.1, "ramp": 200}).training
    rates = [learning_rate(short, step, 50) for step in (0, 4, 25, 49)]
    assert rates == pytest.approx([0.004, 0.02, 0.1, 0.1])
    constant = resolve({"learning_rate": 0.1}).training
    assert {learning_rate(constant, step, 100) for step in range(0, 100, 7)} == {0.1}


def test_the_moving_average_starts_fast() -> None:
    model: Any = nn.Linear(1, 1)
    ema = EMA(model, decay=0.5)
    value = 1.0
    with torch.no_grad():
        ema.model.weight.fill_(value)
        for step, weight in enumerate([2.0, 5.0, -1.0, 4.0, 4.0, 0.0, 3.0, 3.0, 3.0, 8.0, 9.0]):
            model.weight.fill_(weight)
            ema.update(step)
            decay = min(0.5, (1 + step) / (10 + step))
            value = decay * value + (1 - decay) * weight
            assert ema.model.weight.item() == pytest.approx(value, rel=1e-6)


def test_validation_averages_over_images() -> None:
    """23 images in batches of 10, 10 and 3, against one batch: the KL has no noise in it."""
    pack = open_pack(rings(60, 12), resolve({"validation": "last:23"}).data, quiet=True)
    config = resolve(MLP, {"objective": {"beta": 2.0, "warmup": 5}})
    model, objective = build(config, pack.shape)
    loader = ImageLoader(pack, config.data, 10, 0, torch.device("cpu"))
    train_step = TrainStep(model, objective, config.training, loader.steps_per_epoch)
    metrics, repeated = (evaluate(train_step, loader, "validation") for _ in range(2))
    x = torch.cat([x for x, _ in loader.split("validation")])
    assert len(x) == 23
    q = model.encode(x)
    kl = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum(1).mean().item()
    assert metrics["kl"] == pytest.approx(kl, rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["reconstruction"] + 2 * metrics["kl"], rel=1e-6)
    assert metrics == repeated
    train_step.eval_micro_batches = 3
    divided = evaluate(train_step, loader, "validation")
    assert divided["kl"] == pytest.approx(kl, rel=1e-5)
    assert divided["reconstruction"] != metrics["reconstruction"]


class Counting(Elbo):
    """The ELBO, which says how many samples it was given."""

    seen: ClassVar[set[int]] = set()

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.seen.add(len(terms.log_px))
        return super().__call__(terms, epoch)


def test_objectives_get_samples_and_the_number_of_images() -> None:
    pack = open_pack(rings(60, 12), resolve({"validation": "last:20"}).data, quiet=True)
    config = resolve(MLP, {"epochs": 1, "batch_size": 20, "optimizer": "sgd", "learning_rate": 1e-4})
    model, _ = build(config, pack.shape)
    loader = ImageLoader(pack, config.data, 20, 0, torch.device("cpu"))
    train_step = TrainStep(model, Counting(ElboConfig(samples=7)), config.training, loader.steps_per_epoch)
    assert len(list(train(train_step, loader, 1, Progress(), lambda _: False))) == 1
    assert Counting.seen == {7}
    layers = {"validation": "last:20", "objective": "total_correlation"}
    assert make_plan(TrainRequest(rings(60, 12), (layers,), quiet=True)).objective.images == 40


def test_pictures_are_drawn_less_often_later() -> None:
    due = [epoch for epoch in range(1, 1001) if is_picture_epoch(epoch)]
    assert due[:24] == [*range(1, 21), 22, 24, 26, 28]
    assert [epoch for epoch in due if epoch >= 100][:3] == [100, 110, 120]
    assert len(due) == 80


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_while_training() -> None:
    def pages_cleared() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            # 24 MB each, together more than is kept by default
            tensors = [torch.ones(6_000_000) for _ in range(4)]
            del tensors
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with keep_freed_memory():
        pages_cleared()
        inside = pages_cleared()
    assert 10 * inside < pages_cleared()


def test_denormals_are_zero_on_every_thread_while_training() -> None:
    # of an operation that all threads share; four times, so that each of them takes its part
    def left() -> int:
        return sum(int((torch.full((1 << 22,), 1e-39) * torch.ones(())).count_nonzero()) for _ in range(4))

    before = left()
    assert before
    with flush_denormals():
        assert left() == 0
        with flush_denormals():
            assert left() == 0
        assert left() == 0
    assert left() == before
