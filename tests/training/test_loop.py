"""Learning rate, moving average and validation, against numbers worked out by hand."""

import copy
import math
import resource
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from command import rings
from vaekit.config.overrides import resolve
from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import open_pack
from vaekit.models.builder import build
from vaekit.models.objectives.elbo import Elbo
from vaekit.models.terms import Terms
from vaekit.training.ema import make_ema_update
from vaekit.training.loop import evaluate, train
from vaekit.training.monitor import picture_due
from vaekit.training.optimizers import learning_rate
from vaekit.training.plan import TrainRequest, make_plan
from vaekit.training.step import Progress
from vaekit.utils.device import flush_denormals, keep_freed_memory


def test_learning_rate_rises_along_the_ramp_and_falls_along_half_a_cosine() -> None:
    settings = resolve({"learning_rate": 0.1, "ramp": 4, "schedule": "cosine"}).training
    rates = [learning_rate(settings, step, 100) for step in (0, 1, 3, 25, 50, 100)]
    cosine = [0.5 * (1 + np.cos(np.pi * step / 100)) for step in (0, 1, 3, 25, 50, 100)]
    expected = [0.025, 0.05 * cosine[1], 0.1 * cosine[2], 0.1 * cosine[3], 0.05, 0.0]
    assert rates == pytest.approx(expected, abs=1e-12)
    short = resolve({"learning_rate": 0.1, "ramp": 200}).training
    assert [learning_rate(short, step, 50) for step in (0, 4, 25, 49)] == pytest.approx([0.004, 0.02, 0.1, 0.1])
    constant = resolve({"learning_rate": 0.1}).training
    assert {learning_rate(constant, step, 100) for step in range(0, 100, 7)} == {0.1}


def test_moving_average_starts_quickly_and_ends_at_its_decay() -> None:
    model, ema_model = nn.Linear(1, 1), nn.Linear(1, 1)
    ema_model.requires_grad_(False)
    update_ema = make_ema_update(ema_model, model, decay=0.5)
    value = 1.0
    with torch.no_grad():
        ema_model.weight.fill_(value)
        for step, weight in enumerate([2.0, 5.0, -1.0, 4.0, 4.0, 0.0, 3.0, 3.0, 3.0, 8.0, 9.0]):
            model.weight.fill_(weight)
            update_ema(step)
            decay = min(0.5, (1 + step) / (10 + step))
            value = decay * value + (1 - decay) * weight
            assert ema_model.weight.item() == pytest.approx(value, rel=1e-6)


def test_validation_is_the_mean_over_images_also_with_a_short_last_batch() -> None:
    """23 held-out images in batches of 10, 10 and 3, against one batch of all: the KL has no noise in it."""
    pack = open_pack(rings(60, 12), resolve({"validation": "last:23"}).data, quiet=True)
    config = resolve({"encoder": "mlp", "decoder": "mlp", "latents": 3, "objective": {"beta": 2.0, "warmup": 5}})
    model, objective = build(config, pack.shape)
    device = torch.device("cpu")
    few = evaluate(model, ImageLoader(pack, config.data, 10, 0, device), "validation", objective, seed=0)
    again = evaluate(model, ImageLoader(pack, config.data, 10, 0, device), "validation", objective, seed=0)
    x = torch.cat([x for x, _ in ImageLoader(pack, config.data, 10, 0, device).split("validation")])
    assert len(x) == 23
    q = model.encode(x)
    kl = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum(1).mean().item()
    assert few["kl"] == pytest.approx(kl, rel=1e-5)
    assert few["loss"] == pytest.approx(few["reconstruction"] + 2 * few["kl"], rel=1e-6)
    assert few == again
    third = Progress(eval_micro_batches=3)
    parts = evaluate(
        model, ImageLoader(pack, config.data, 10, 0, device), "validation", objective, seed=0, progress=third
    )
    assert parts["kl"] == pytest.approx(kl, rel=1e-5) and parts["reconstruction"] != few["reconstruction"]


class Counting(Elbo):
    """The ELBO, which says how many samples it was given."""

    seen: ClassVar[set[int]] = set()

    def __call__(self, terms: Terms, epoch: float = math.inf) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.seen.add(len(terms.log_px))
        return super().__call__(terms, epoch)


def test_an_objective_is_given_as_many_samples_as_it_asks_for() -> None:
    pack = open_pack(rings(60, 12), resolve({"validation": "last:20"}).data, quiet=True)
    config = resolve({"encoder": "mlp", "decoder": "mlp", "latents": 3, "epochs": 1, "batch_size": 20})
    model, _ = build(config, pack.shape)
    batches = ImageLoader(pack, config.data, 20, 0, torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    ema_model = copy.deepcopy(model)
    epochs = train(
        model, ema_model, batches, Counting(samples=7), optimizer, config.training, Progress(), lambda _: False
    )
    assert len(list(epochs)) == 1
    assert Counting.seen == {7}


def test_an_objective_is_told_how_many_images_train() -> None:
    layers = {"validation": "last:20", "objective": "total_correlation"}
    assert make_plan(TrainRequest(rings(60, 12), (layers,), quiet=True)).objective.images == 40  # type: ignore[attr-defined]


def test_pictures_are_drawn_every_epoch_at_first_and_more_rarely_later() -> None:
    due = [epoch for epoch in range(1, 1001) if picture_due(epoch)]
    assert due[:24] == [*range(1, 21), 22, 24, 26, 28]
    assert [epoch for epoch in due if epoch >= 100][:3] == [100, 110, 120]
    assert len(due) == 80


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_of_freed_tensors_is_kept_while_training_and_given_back_afterwards() -> None:
    def pages_cleared() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            tensors = [torch.ones(6_000_000) for _ in range(4)]  # 24 MB each, together more than is kept by default
            del tensors
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with keep_freed_memory():
        pages_cleared()
        inside = pages_cleared()
    assert 10 * inside < pages_cleared()


def test_the_smallest_numbers_are_zero_on_every_thread_while_training_and_come_back_afterwards() -> None:
    def left() -> int:  # of an operation that all threads share; four times, so that each of them takes its part
        return sum(int((torch.full((1 << 22,), 1e-39) * torch.ones(())).count_nonzero()) for _ in range(4))

    before = left()
    assert before
    with flush_denormals():
        assert left() == 0
        with flush_denormals():
            assert left() == 0
        assert left() == 0
    assert left() == before
