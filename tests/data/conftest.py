"""A separate cache for every test, and folders of random images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytest import MonkeyPatch


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of PNG files 10x8, no two alike, at the given paths."""

    def make(*paths: str, folder: str = "photos") -> Path:
        root = tmp_path / folder
        for path in paths:
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            random = np.random.default_rng(int.from_bytes(path.encode()[-8:], "big"))
            noise = random.integers(0, 256, (8, 10, 3), np.uint8)
            Image.fromarray(noise).save(file)
        return root

    return make
