"""`rank --maps`: where images are odd, and the threshold from held-out images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import vaekit
from command import MLP, mistake, refused, rings, save_images
from command import vaekit as command
from vaekit import TrainedModel
from vaekit.evaluation.maps import THRESHOLD_QUANTILE
from vaekit.plots.grids import GAP, LINE_HEIGHT, MARGIN, PAIR_GAP, TITLE_HEIGHT
from vaekit.plots.maps import BAR

SIZE, COUNT = 16, 400
TINY = MLP | {"preset": "classic", "likelihood": "gaussian", "batch_size": 32, "quiet": True, "report": False}
SQUARE = slice(1, 5)
"""Rows and columns of the square that is painted on images."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = rings(COUNT, SIZE)
    named = {f"{'test' if i % 4 == 0 else 'train'}/{i}.png": image for i, image in enumerate(images)}
    return save_images(tmp_path_factory.mktemp("data") / "photos", named)


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return vaekit.train(photos, out=tmp_path_factory.mktemp("runs") / "run", epochs=30, **TINY)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New rings, the first eight with a square painted on them."""
    images = rings(80, SIZE, seed=5)
    images[:8, SQUARE, SQUARE] = 255
    named = {f"{'painted' if i < 8 else 'clean'} {i}.png": image for i, image in enumerate(images)}
    return save_images(tmp_path_factory.mktemp("data") / "others", named)


def test_painted_squares_are_above_the_threshold(
    model: TrainedModel, photos: Path, others: Path, tmp_path: Path
) -> None:
    output = command("rank", model.run.folder, others, "--maps", "--out", tmp_path / "order.csv")
    names = [str(tmp_path / f"order{ending}") for ending in (".csv", ".png", "_maps.png", "_maps.npz")]
    assert f"Wrote {', '.join(names[:3])} and {names[3]}" in output
    table, saved = pd.read_csv(names[0]), np.load(names[3])
    maps, threshold, files = saved["maps"], saved["threshold"], saved["files"]
    assert (maps.shape, maps.dtype) == ((80, SIZE, SIZE), np.float32)
    assert f"odd pixels: above {threshold:.3g} nats, as 1% of held-out pixels; " in output
    assert files.tolist() == table["file"].tolist() == model.rank(others, quiet=True)["file"].tolist()
    odd = maps > threshold
    np.testing.assert_allclose(table["odd_pixels"], odd.mean((1, 2)), atol=1e-6)
    painted = np.char.startswith(files, "painted")
    assert odd[painted, SQUARE, SQUARE].mean() > 0.5
    assert odd[~painted].mean() < 5 * (1 - THRESHOLD_QUANTILE)


def test_maps_sum_to_log_p_and_the_threshold_is_a_quantile_of_held_out_images(
    model: TrainedModel, photos: Path, tmp_path: Path
) -> None:
    table = model.rank(photos / "test", maps=True, out=tmp_path / "held out.csv", quiet=True)
    saved = np.load(tmp_path / "held out_maps.npz")
    assert np.quantile(saved["maps"], THRESHOLD_QUANTILE) == pytest.approx(saved["threshold"], rel=1e-5)
    assert table.attrs["threshold"] == saved["threshold"]
    assert table["odd_pixels"].mean() == pytest.approx(1 - THRESHOLD_QUANTILE, abs=1e-3)
    images = np.stack([np.asarray(Image.open(photos / "test" / name)) for name in table["file"]])
    x = torch.from_numpy(images[:, None]) / 255
    with torch.no_grad():
        log_p = model.model.decode(model.model.posterior_of(x).mean).log_prob(x).numpy()
    # The average over windows counts pixels near the edge otherwise, where these images are black
    np.testing.assert_allclose(saved["maps"].sum((1, 2)), -log_p, rtol=0.02)


def test_sheet_has_image_reconstruction_and_map(model: TrainedModel, others: Path, tmp_path: Path) -> None:
    table = model.rank(others, maps=True, out=tmp_path / "order.csv", quiet=True)
    first = np.asarray(Image.open(others / table["file"][0]))
    with Image.open(tmp_path / "order_maps.png") as sheet:
        pixels = np.asarray(sheet)
    top = 3 * MARGIN + 2 * TITLE_HEIGHT + GAP + BAR[1] + 4 + LINE_HEIGHT
    tiles = [pixels[top + i * (96 + PAIR_GAP) :, MARGIN:][:96:6, :96:6] for i in range(3)]
    np.testing.assert_array_equal(tiles[0][..., 0], first)
    np.testing.assert_array_equal(tiles[1][..., 0], model.reconstruct(first[None, ..., None])[0, ..., 0])
    assert np.ptp(tiles[2].astype(int), axis=-1).max() > 50  # in colours


def test_no_file_is_overwritten(model: TrainedModel, others: Path, tmp_path: Path) -> None:
    for ending in ("_maps.png", "_maps.npz"):
        (tmp_path / f"order{ending}").write_text("mine")
        refused(f"order{ending} already exists", model.rank, others, maps=True, out=tmp_path / "order.csv")
        assert (tmp_path / f"order{ending}").read_text() == "mine"
        (tmp_path / f"order{ending}").unlink()
    (model.run.folder / "ranking-1_maps.npz").write_text("mine")
    assert "ranking-2.csv" in command("rank", model.run.folder, others, "--maps")


def test_the_threshold_needs_the_training_images(tmp_path: Path, others: Path) -> None:
    images = rings(60, SIZE)
    model = vaekit.train(images, out=tmp_path / "run", epochs=1, **TINY)
    assert model.rank(others, maps=True, quiet=True).attrs["threshold"] > 0
    loaded = vaekit.load(tmp_path / "run")
    assert len(loaded.rank(others, quiet=True)) == 80
    refused(
        "Maps need held-out training images .* in memory .* or leave out `maps`",
        loaded.rank,
        others,
        maps=True,
    )
    output = mistake("rank", tmp_path / "run", others, "--maps", "--out", tmp_path / "order.csv")
    assert "leave out --maps" in output and not list(tmp_path.glob("order*"))
    assert "odd_pixels" in loaded.rank(images, maps=True, quiet=True)


def test_training_images_that_moved_can_be_given(tmp_path: Path, others: Path) -> None:
    named = {f"{i}.png": image for i, image in enumerate(rings(60, SIZE))}
    photos = save_images(tmp_path / "photos", named)
    model = vaekit.train(photos, out=tmp_path / "run", epochs=1, **TINY)
    table = model.rank(maps=True, quiet=True)
    photos.rename(tmp_path / "moved")
    refused("photos' does not exist. Restore the training images", model.rank, others, maps=True)
    given = model.rank(tmp_path / "moved", maps=True, quiet=True)
    assert given.attrs["threshold"] == table.attrs["threshold"]


def test_a_conditional_model_has_maps(tmp_path: Path) -> None:
    named = {f"{'ab'[i % 2]}/{i}.png": image for i, image in enumerate(rings(40, SIZE, 3))}
    photos = save_images(tmp_path / "photos", named)
    model = vaekit.train(photos, out=tmp_path / "run", epochs=1, conditional=True, **TINY)
    model.rank(maps=True, out=tmp_path / "order.csv", quiet=True)
    assert np.load(tmp_path / "order_maps.npz")["maps"].shape == (40, SIZE, SIZE)
