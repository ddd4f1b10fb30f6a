"""Batches depend on (seed, epoch, draw) and on nothing else."""

from typing import Any

import numpy as np
import pytest
import torch
from pytest import MonkeyPatch
from torch import Tensor

from command import refused, user_error
from vaekit.config.data import DataConfig
from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import open_pack

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 6, 5, 3), np.uint8)
LABELS = np.repeat([0, 1, 2], [40, 15, 5])
ALL = {"flip": True, "crop": 2, "jitter": 0.4}


def make_loader(size: int, seed: int = 0, images: Any = (IMAGES, LABELS), **options: Any) -> ImageLoader:
    config = DataConfig(validation="last:10", **options)
    return ImageLoader(open_pack(images, config), config, size, seed, torch.device("cpu"))


def concat(batches: Any) -> tuple[Tensor, Tensor]:
    x, y = zip(*batches, strict=True)
    return torch.cat(x), torch.cat(y)


def test_an_epoch_holds_every_image_once_in_full_batches() -> None:
    loader = make_loader(10)
    x, y = concat(loader.train(0))
    assert x.shape == (50, 3, 6, 5) and x.dtype == torch.float32 and y.dtype == torch.int64
    expected = torch.from_numpy(IMAGES[:50]).permute(0, 3, 1, 2) / 255
    rows = [int(torch.nonzero((expected == image).all((1, 2, 3))).item()) for image in x]
    assert sorted(rows) == list(range(50)) and rows != sorted(rows)
    assert y.tolist() == LABELS[rows].tolist()
    loader = make_loader(16)
    assert loader.steps_per_epoch == 3 and [len(x) for x, _ in loader.train(0)] == [16] * 3
    few = make_loader(1000)
    assert few.steps_per_epoch == 1 and [len(x) for x, _ in few.train(0)] == [50]


def test_order_depends_on_epoch_and_seed_alone(monkeypatch: MonkeyPatch) -> None:
    first = concat(make_loader(10).train(3))[0]
    assert torch.equal(first, concat(make_loader(10).train(3))[0])
    assert not torch.equal(first, concat(make_loader(10).train(4))[0])
    assert not torch.equal(first, concat(make_loader(10, seed=1).train(3))[0])
    expected = concat(make_loader(10, **ALL).train(2))
    monkeypatch.setattr("vaekit.data.loader.DRAWS_PER_BLOCK", 20)
    assert torch.equal(expected[0], concat(make_loader(10, **ALL).train(2))[0])


@pytest.mark.parametrize("options", [{}, ALL, {"balance": True, **ALL}])
def test_batches_do_not_depend_on_start_or_batch_size(options: dict[str, Any]) -> None:
    expected = concat(make_loader(10, **options).train(2))
    late = concat(make_loader(10, **options).train(2, start=3))
    assert torch.equal(expected[0][30:], late[0]) and torch.equal(expected[1][30:], late[1])
    small = concat(make_loader(5, **options).train(2))
    assert torch.equal(expected[0], small[0]) and torch.equal(expected[1], small[1])


def test_split_is_whole_and_in_order() -> None:
    loader = make_loader(4, **ALL)
    x, y = concat(loader.split("validation"))
    assert torch.equal(x, torch.from_numpy(IMAGES[50:]).permute(0, 3, 1, 2) / 255)
    assert y.tolist() == LABELS[50:].tolist()
    assert [len(x) for x, _ in loader.split("validation")] == [4, 4, 2]
    assert [len(x) for x, _ in loader.split("validation", limit=7)] == [4, 3]
    every, few = (torch.cat([x for x, _ in loader.split("validation", limit=n)]) for n in (None, 4))
    assert torch.equal(few, every[[0, 2, 5, 7]])  # also from the end, since splits are sorted by class
    assert [len(x) for x, _ in loader.split("validation", limit=70, size=70)] == [10]
    assert list(loader.split("test")) == []


def test_classes_may_be_missing_or_balanced() -> None:
    assert next(make_loader(4, images=IMAGES).train(0))[1] is None
    assert next(make_loader(4, images=IMAGES).split("validation"))[1] is None
    refused("`balance`: needs classes", make_loader, 4, images=IMAGES, balance=True)
    loader = make_loader(6, balance=True)
    _, y = concat(loader.train(0))
    assert torch.bincount(y).tolist() == [24, 24]  # class 2 is in validation alone


def test_flip_mirrors_half_of_the_images() -> None:
    plain, flipped = concat(make_loader(10).train(1))[0], concat(make_loader(10, flip=True).train(1))[0]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(plain, flipped, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True)) and 10 < sum(mirrored) < 40
    next_epoch = concat(make_loader(10, flip=True).train(2))[0]
    back = {tuple(x.flatten().tolist()) for x in next_epoch} - {tuple(x.flatten().tolist()) for x in flipped}
    assert back  # another half in every epoch


def test_crop_shifts_and_reflects() -> None:
    plain, moved = concat(make_loader(10).train(1))[0], concat(make_loader(10, crop=2).train(1))[0]
    padded = torch.nn.functional.pad(plain, (2, 2, 2, 2), mode="reflect")
    seen = set()
    for image, at in zip(moved, padded, strict=True):
        fits = [(i, j) for i in range(5) for j in range(5) if torch.equal(at[:, i : i + 6, j : j + 5], image)]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) > 12 and {i for i, _ in seen} == {j for _, j in seen} == set(range(5))


def test_jitter_stays_on_the_256_levels() -> None:
    plain, varied = concat(make_loader(10).train(1))[0], concat(make_loader(10, jitter=0.5).train(1))[0]
    assert not torch.equal(plain, varied) and varied.min() >= 0 and varied.max() <= 1
    assert torch.equal(varied, (varied * 255).round() / 255)
    changed = (varied - plain).abs().mean((1, 2, 3))
    assert len(set(changed.tolist())) == 50  # no two images alike


class ArraysInMemory:
    """The smallest image source."""

    shape, classes = (3, 6, 5), ("a", "b", "c")

    def count(self, split: str) -> int:
        return {"train": 50, "validation": 10, "test": 0}[split]

    def split_labels(self, split: str) -> np.ndarray:
        return LABELS[self._rows(split)]

    def read(self, split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return IMAGES[self._rows(split)][rows], self.split_labels(split)[rows]

    def _rows(self, split: str) -> slice:
        return {"train": slice(50), "validation": slice(50, 60), "test": slice(0)}[split]


@pytest.mark.parametrize("balance", [False, True])
def test_loader_reads_from_any_image_source(balance: bool) -> None:
    config = DataConfig(validation="last:10", balance=balance, **ALL)
    sources = (ArraysInMemory(), open_pack((IMAGES, LABELS), config))
    loader, expected_loader = (ImageLoader(source, config, 10, 0, torch.device("cpu")) for source in sources)
    validation, expected_validation = loader.split("validation"), expected_loader.split("validation")
    for batches, expected in ((loader.train(1), expected_loader.train(1)), (validation, expected_validation)):
        (x, y), (u, v) = concat(batches), concat(expected)
        assert torch.equal(x, u) and torch.equal(y, v)


@pytest.mark.parametrize("options", [ALL, {"balance": True, **ALL}])
def test_loaders_of_all_ranks_make_one_batch(options: dict[str, Any]) -> None:
    config = DataConfig(validation="last:10", **options)
    pack = open_pack((IMAGES, LABELS), config)
    ranks_of = ((0, 1), (0, 3), (1, 3), (2, 3))
    one, *ranks = (ImageLoader(pack, config, 12, 3, torch.device("cpu"), *rank) for rank in ranks_of)
    assert {loader.steps_per_epoch for loader in ranks} == {one.steps_per_epoch}
    shares = (loader.train(2, start=1) for loader in ranks)
    for (x, y), *parts in zip(one.train(2, start=1), *shares, strict=True):
        assert [len(part) for part, _ in parts] == [4, 4, 4]
        expected = concat(parts)
        assert torch.equal(expected[0], x) and torch.equal(expected[1], y)
    validation = concat(one.split("validation"))[0]
    assert all(torch.equal(concat(loader.split("validation"))[0], validation) for loader in ranks)


def test_a_batch_must_divide_among_the_ranks() -> None:
    config = DataConfig(validation="last:10")
    pack, device = open_pack((IMAGES, LABELS), config), torch.device("cpu")
    with user_error("`batch_size`: must be a multiple of the 4 processes"):
        ImageLoader(pack, config, 10, 0, device, rank=1, world_size=4)
    assert ImageLoader(pack, config, 1000, 0, device, rank=1, world_size=4).batch_size == 48
