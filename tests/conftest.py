"""Every annotated tensor shape is checked at run time while the tests run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel: more threads would wait for each other

from jaxtyping import install_import_hook

FOLDERS = ("models", "latents", "runs.inputs", "runs.image_set", "plots", "api")
MODULES = ("data.loader", "data.augment", "evaluation.ranking", "evaluation.maps")
CHECKED = [f"vaekit.{name}" for name in (*FOLDERS, *MODULES)]
install_import_hook(CHECKED, "beartype.beartype")

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The README takes longest: it comes first, so that the other files run in parallel to it."""
    items.sort(key=lambda item: "test_readme" not in item.nodeid)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's cache of packs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def fixed_noise() -> Iterator[None]:
    """Every test starts from the same random state, whatever ran before it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
