"""What vaekit 0.1.0 computed is computed again, and its runs load, resume and generate the same images."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import vaekit
from golden.golden import CASES, EPOCHS, HERE, files, results, train

RUNS = HERE / "runs"


def pinned(case: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    place = RUNS / case
    return json.loads((place / "results.json").read_text()), dict(np.load(place / "arrays.npz"))


def require_same(figures: dict[str, Any], arrays: dict[str, np.ndarray], case: str) -> None:
    """Equal but for the last bits, in which processors differ."""
    expected_figures, expected_arrays = pinned(case)
    for name, array in expected_arrays.items():
        tolerance = 2 if array.dtype == np.uint8 else 1e-2 * max(1.0, float(np.abs(array).max()))
        assert np.abs(arrays[name].astype(float) - array).max() <= tolerance, name
    for kind in ("history", "evaluation"):
        assert figures[kind].keys() == expected_figures[kind].keys()
        for name, value in expected_figures[kind].items():
            assert figures[kind][name] == pytest.approx(value, rel=1e-2, abs=2e-2, nan_ok=True), name


@pytest.mark.parametrize("case", CASES)
def test_training_computes_what_0_1_0_computed(case: str, tmp_path: Path) -> None:
    model = train(case, tmp_path / "run")
    require_same(*results(case, model), case)
    assert files(tmp_path / "run") == pinned(case)[0]["files"]
    runs = (tmp_path / "run", RUNS / case / "run")
    weights, expected = (load_file(run / "model.safetensors") for run in runs)
    expected.pop("latent_scale", None)  # which nothing read
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(weights[name], tensor, rtol=1e-2, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_a_run_of_0_1_0_loads_and_generates_the_same(case: str, tmp_path: Path) -> None:
    shutil.copytree(RUNS / case / "run", tmp_path / "run")
    require_same(*results(case, vaekit.load(tmp_path / "run")), case)


@pytest.mark.parametrize("case", CASES)
def test_a_run_of_0_1_0_resumes(case: str, tmp_path: Path) -> None:
    shutil.copytree(RUNS / case / "run", tmp_path / "run")
    resumed = train(case, tmp_path / "run", resume=True, epochs=EPOCHS + 1, report=False, preset=None)
    for name, losses in pinned(case)[0]["resumed"].items():
        assert resumed.history[name].tolist() == pytest.approx(losses, rel=1e-3), name
