"""A separate cache for every test, and folders of random images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest import MonkeyPatch

from command import save_images


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of PNG files 10x8, no two alike, at the given paths."""

    def make(*paths: str, folder: str = "photos") -> Path:
        seeds = {path: int.from_bytes(path.encode()[-8:], "big") for path in paths}
        noise = {p: np.random.default_rng(s).integers(0, 256, (8, 10, 3), np.uint8) for p, s in seeds.items()}
        return save_images(tmp_path / folder, noise)

    return make
