"""What `vaekit bench` compares is the same work, and its figures are computed as documented."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest import MonkeyPatch

import baselines
from command import MLP, mistake, rings, vaekit
from photos import photo
from time_shares import PARTS, time_shares
from vaekit.bench import workloads
from vaekit.bench.loops import bare_loop, plain_loss, vaekit_loop
from vaekit.bench.measure import BenchResult, bench, run_interleaved
from vaekit.config.overrides import resolve
from vaekit.data.packs.pack import open_pack
from vaekit.models.builder import build

CPU = torch.device("cpu")


@pytest.mark.parametrize("network", ["mlp", "conv", "resnet"])
def test_bare_loop_minimizes_the_same_loss(network: str) -> None:
    model, objective = build(resolve({"encoder": network, "decoder": network, "latents": 3}), (3, 16, 16))
    x = torch.rand(5, 3, 16, 16)
    torch.manual_seed(0)
    plain = plain_loss(model, x)
    torch.manual_seed(0)
    loss, _ = objective(model.terms(x, None, 1))
    torch.testing.assert_close(plain, loss)


def test_loops_train_on_the_number_of_images_returned() -> None:
    config = resolve(MLP | {"validation": "last:8"})
    pack = open_pack(rings(72, 12), config.data, quiet=True)
    dataset = baselines.ArrayDataset(np.array(pack.images[pack.splits["train"]]))
    runs_once = {
        "bare": bare_loop(config, pack, CPU),
        "process settings": bare_loop(config, pack, CPU, fused=False, process_settings=True),
        "vaekit": vaekit_loop(config, pack, CPU, precision="32"),
        "vaekit, bf16": vaekit_loop(config, pack, CPU, precision="bf16"),
        "loader": baselines.loader_loop(config, pack, CPU, dataset),
    }
    if baselines.has_pythae():
        runs_once["Pythae"] = baselines.pythae_loop(config, pack, CPU)
    for name, run_once in runs_once.items():
        assert [run_once(), run_once()] == [64, 64], name


def test_time_shares_add_up_and_cover_every_part() -> None:
    shares = time_shares(MLP | {"epochs": 12, "ema": 0.5}, rings(600, 12))
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {*PARTS, "other"}
    assert all(share > 0 for name, share in shares.items() if name != "other"), shares
    assert 0 <= shares["other"] < 0.4, shares


def test_rounds_are_interleaved_after_a_warm_up() -> None:
    seen: list[str] = []

    def run_once(name: str) -> int:
        seen.append(name)
        return 10

    speeds = run_interleaved({name: lambda name=name: run_once(name) for name in "abc"}, 3)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in speeds.items()} == {"a": 3, "b": 3, "c": 3}


def test_ratios_are_computed_per_round() -> None:
    """A round in which the machine is ten times slower changes no ratio."""
    result = BenchResult("", "a", {"a": [10.0, 1.0, 12.0], "b": [20.0, 2.0, 24.0], "vaekit": [5.0, 5.0, 5.0]})
    assert result.ratio("b", "a") == 2
    assert result.speed("a") == 10
    assert result.fastest("v") == "vaekit" and result.fastest("") == "b"


@pytest.mark.parametrize("make", [workloads.synthetic_image, photo])
def test_synthetic_images_depend_on_the_seed_alone(make: Callable[[int, int, int], Image.Image]) -> None:
    image, same, other = (np.asarray(make(seed, 40, 30)) for seed in (3, 3, 4))
    assert image.shape == (30, 40, 3) and image.std() > 10
    assert np.array_equal(image, same) and not np.array_equal(image, other)


@pytest.mark.parametrize("name", ["folder-first", "folder-later"])
def test_folder_workloads_train_from_jpegs(name: str, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "JPEG_COUNT", 65)
    monkeypatch.setattr(workloads, "JPEG_SIZE", (80, 60))
    result = bench([name], 1, workloads.WORKLOADS)["workloads"][name]
    assert list(result["rounds"]) == ["bare loop", "vaekit, float32", "vaekit, bfloat16"]
    assert all(speed > 0 for speeds in result["rounds"].values() for speed in speeds)


def test_the_command(tmp_path: Path) -> None:
    text = vaekit("bench", "generation", "--rounds", 1, cwd=tmp_path)
    assert "bare decoder" in text and "Wrote bench-1.json" in text
    result = json.loads((tmp_path / "bench-1.json").read_text())
    assert result["format"] == 1 and result["machine"]["torch"] == torch.__version__
    rounds = result["workloads"]["generation"]["rounds"]
    assert {name: len(speeds) for name, speeds in rounds.items()} == {"bare decoder": 1, "vaekit": 1}
    assert "'generatoin'" in mistake("bench", "generatoin", cwd=tmp_path)
    assert "(got 0)" in mistake("bench", "generation", "--rounds", 0, cwd=tmp_path)
    assert not (tmp_path / "bench-2.json").exists()
