"""What the benchmarks compare is the same thing, and their figures are what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from command import mistake, rings, vaekit
from vaekit.bench import baselines
from vaekit.bench.measure import BenchResult, run_interleaved
from vaekit.bench.photos import photo
from vaekit.bench.shares import PARTS, shares
from vaekit.config.overrides import resolve
from vaekit.data.packs.pack import open_pack
from vaekit.models.builder import build

CPU = torch.device("cpu")
SMALL = {"encoder": "mlp", "decoder": "mlp", "latents": 3, "batch_size": 16}


@pytest.mark.parametrize("network", ["mlp", "conv", "resnet"])
def test_the_bare_loop_minimises_what_vaekit_does(network: str) -> None:
    model, objective = build(resolve({"encoder": network, "decoder": network, "latents": 3}), (3, 16, 16))
    x = torch.rand(5, 3, 16, 16)
    torch.manual_seed(0)
    plain = baselines.plain_loss(model, x)
    torch.manual_seed(0)
    loss, _ = objective(model.terms(x, None, 1))
    torch.testing.assert_close(plain, loss)


def test_everyone_trains_on_the_images_they_say() -> None:
    config = resolve(SMALL | {"validation": "last:8"})
    pack = open_pack(rings(72, 12), config.data, quiet=True)
    runs_once = {
        "bare": baselines.bare(config, pack, CPU),
        "settled": baselines.bare(config, pack, CPU, fused=False, process_settings=True),
        "loader": baselines.dataloader(config, pack, CPU),
        "vaekit": baselines.vaekit(config, pack, CPU, precision="32"),
        "vaekit, bf16": baselines.vaekit(config, pack, CPU, precision="bf16"),
    }
    if baselines.has_pythae():
        runs_once["Pythae"] = baselines.pythae(config, pack, CPU)
    for name, run_once in runs_once.items():
        assert [run_once(), run_once()] == [64, 64], name


def test_turns_are_taken_in_changing_order_and_the_first_does_not_count() -> None:
    seen: list[str] = []

    def run_once(name: str) -> int:
        seen.append(name)
        return 10

    speeds = run_interleaved({name: lambda name=name: run_once(name) for name in "abc"}, 3)  # type: ignore[misc]
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(one) for name, one in speeds.items()} == {"a": 3, "b": 3, "c": 3}


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that is ten times slower in one round says nothing about either."""
    found = BenchResult("", "a", {"a": [10.0, 1.0, 12.0], "b": [20.0, 2.0, 24.0], "vaekit": [5.0, 5.0, 5.0]})
    assert found.ratio("b", "a") == 2
    assert found.speed("a") == 10
    assert found.best("v") == "vaekit" and found.best("") == "b"


def test_photos_aremade_up_of_a_seed() -> None:
    one = np.asarray(photo(3, 40, 30))
    assert one.shape == (30, 40, 3) and one.std() > 10
    np.testing.assert_array_equal(one, np.asarray(photo(3, 40, 30)))
    assert not np.array_equal(one, np.asarray(photo(4, 40, 30)))


def test_shares_add_up_and_every_part_is_met() -> None:
    found = shares(SMALL | {"epochs": 12, "ema": 0.5}, rings(600, 12))
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == {*PARTS, "other"}
    assert all(share > 0 for name, share in found.items() if name != "other"), found
    assert 0 <= found["other"] < 0.4, found


def test_the_verb(tmp_path: Path) -> None:
    said = vaekit("bench", "generation", "--rounds", 1, cwd=tmp_path)
    assert "bare decoder" in said and "Wrote bench-1.json" in said
    found = json.loads((tmp_path / "bench-1.json").read_text())
    assert found["format"] == 1 and found["machine"]["torch"] == torch.__version__
    rounds = found["workloads"]["generation"]["rounds"]
    assert {name: len(one) for name, one in rounds.items()} == {"bare decoder": 1, "vaekit": 1}
    assert "'generatoin'" in mistake("bench", "generatoin", cwd=tmp_path)
    assert "--rounds 0" in mistake("bench", "generation", "--rounds", 0, cwd=tmp_path)
    assert not (tmp_path / "bench-2.json").exists()
