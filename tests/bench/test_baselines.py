"""What `benchmarks/baselines.py` compares is the same work, and the shares of time are complete."""

import numpy as np
import pytest
import torch

import baselines
from command import MLP, rings
from photos import photo
from time_shares import PARTS, time_shares
from vaekit.config.overrides import resolve
from vaekit.data.packs.pack import open_pack

CPU = torch.device("cpu")


def test_baselines_train_on_the_number_of_images_returned() -> None:
    config = resolve(MLP | {"validation": "last:8"})
    pack = open_pack(rings(72, 12), config.data, quiet=True)
    dataset = baselines.ArrayDataset(np.array(pack.images[pack.splits["train"]]))
    runs_once = {"loader": baselines.loader_loop(config, pack, CPU, dataset)}
    if baselines.has_pythae():
        runs_once["Pythae"] = baselines.pythae_loop(config, pack, CPU)
    for name, run_once in runs_once.items():
        assert [run_once(), run_once()] == [64, 64], name


def test_photographs_depend_on_the_seed_alone() -> None:
    image = np.asarray(photo(3, 40, 30))
    assert image.shape == (30, 40, 3) and image.std() > 10
    np.testing.assert_array_equal(image, np.asarray(photo(3, 40, 30)))
    assert not np.array_equal(image, np.asarray(photo(4, 40, 30)))


def test_time_shares_add_up_and_cover_every_part() -> None:
    shares = time_shares(MLP | {"epochs": 12, "ema": 0.5}, rings(600, 12))
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {*PARTS, "other"}
    assert all(share > 0 for name, share in shares.items() if name != "other"), shares
    assert 0 <= shares["other"] < 0.4, shares
