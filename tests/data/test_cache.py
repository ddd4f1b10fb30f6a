"""Where the cache folder cannot be used, images are cached next to the run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytest import MonkeyPatch
from torch.utils.data import TensorDataset

import vaekit
from command import MLP, folder_state, mistake, refused, rings, save_images
from command import vaekit as command
from vaekit.config.data import DataConfig
from vaekit.data.packs.pack import open_pack

Make = Callable[..., Path]
FLAGS = (
    "--preset",
    "classic",
    "--encoder.kind",
    "mlp",
    "--decoder.kind",
    "mlp",
    "--latents",
    3,
    "--threads",
    1,
)
SHORT = (*FLAGS, "--epochs", 1, "--no-report")


@pytest.fixture(params=["a file", "nowhere", "a file in it"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: MonkeyPatch) -> Path:
    """A cache folder that cannot be written; permissions do not bind every user."""
    home = Path("/dev/null/x") if request.param == "nowhere" else tmp_path / "home"
    if request.param == "a file":
        home.touch()
    elif request.param == "a file in it":
        (home / "vaekit").mkdir(parents=True)
        (home / "vaekit" / "packs").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "vaekit" / "packs"


def packs(folder: Path) -> list[Path]:
    return [path for path in (folder / ".vaekit-cache" / "packs").glob("*") if path.is_dir()]


def test_another_folder_is_used_and_found_by_the_next_command(unusable: Path, tmp_path: Path) -> None:
    photos = save_images(tmp_path / "photos", {f"{i}.png": image for i, image in enumerate(rings(40))})
    run, before = tmp_path / "out" / "run", folder_state(photos)
    output = command("train", photos, "--out", run, *SHORT)
    line = f"The cache folder '{unusable}' cannot be created ("
    instead = f"images are cached in '{run.parent}/.vaekit-cache/packs' instead."
    assert [each.endswith(instead) for each in output.splitlines() if each.startswith(line)] == [True]
    [pack] = packs(run.parent)
    state = folder_state(pack)
    later = command("train", "--resume", "--out", run, "--epochs", 2, "--no-report")
    for arguments in (("evaluate", run, "--samples", 1), ("rank", run)):
        later += command(*arguments)
    assert "The cache folder" not in later
    assert packs(run.parent) == [pack] and folder_state(pack) == state
    assert folder_state(photos) == before


def test_a_full_disk_has_images_cached_next_to_the_run(
    photos: Make, cache: Path, tmp_path: Path, monkeypatch: MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage

    def full(path: Path) -> object:
        return SimpleNamespace(free=0) if Path(path).is_relative_to(cache) else usage(path)

    root, run = photos(*[f"{i}.png" for i in range(40)]), tmp_path / "runs" / "run"
    monkeypatch.setattr(shutil, "disk_usage", full)
    model = vaekit.train(root, out=run, preset="classic", epochs=1, report=False, **MLP)
    shown = capsys.readouterr()
    assert "needs 0 MB, but only 0 MB are free: images are cached in" in shown.out + shown.err
    assert len(packs(run.parent)) == 1 and not list((cache / "vaekit" / "packs").glob("*/"))
    model.evaluate(samples=1, quiet=True)
    assert len(packs(run.parent)) == 1


def test_no_folder_is_left(unusable: Path, photos: Make, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    root = photos(*[f"{i}.png" for i in range(20)])
    (tmp_path / ".vaekit-cache").touch()
    message = mistake("train", root, "--out", tmp_path / "run", *SHORT)
    reasons = rf"'{unusable}' cannot be created ("
    assert reasons in message and f"and '{tmp_path}/.vaekit-cache/packs' cannot be created (" in message
    assert message.startswith("vaekit: The images cannot be cached: ") and "set XDG_CACHE_HOME" in message
    before = folder_state(root)
    monkeypatch.chdir(root)
    refused("is inside the image folder", open_pack, root, DataConfig())
    assert folder_state(root) == before


def test_data_in_memory_are_cached_there_too(
    unusable: Path, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = torch.from_numpy(np.moveaxis(rings(20), 3, 1))
    first = open_pack(TensorDataset(images), DataConfig())
    assert packs(tmp_path / "runs") == [first.folder.absolute()]
    assert open_pack(TensorDataset(images), DataConfig()).folder == first.folder
    assert np.array_equal(np.sort(np.asarray(first.images), axis=0), np.sort(rings(20), axis=0))
