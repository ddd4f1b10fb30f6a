"""A closer look: encode, interpolate, traverse and rank, on the real command line and from Python."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import vaekit
from command import NEW_PROCESS, folder_state, mistake, refused, rings, save_images
from command import vaekit as command
from vaekit import TrainedModel
from vaekit.latents import sampling
from vaekit.latents.tables import SUFFIXES
from vaekit.plots.grids import GAP, MARGIN, TITLE_HEIGHT

MLP = {"encoder": "mlp", "decoder": "mlp"}
TINY = MLP | {"latents": 4, "batch_size": 16, "quiet": True}
ODD = ("b/noise 1.png", "b/noise 2.png", "noise 3.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rings in two folders, under numbers that sort otherwise as text; noise among them, and outside them."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    images = {f"{'ab'[index % 2]}/{index}.png": image for index, image in enumerate(rings(40, 12))}
    noise = np.random.default_rng(1).integers(0, 256, (len(ODD), 12, 12, 1), dtype=np.uint8)
    return save_images(folder, images | dict(zip(ODD, noise, strict=True)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A model of rings, in an array that is gone."""
    out = tmp_path_factory.mktemp("runs") / "plain"
    settings = TINY | {"preset": "classic", "likelihood": "gaussian"}
    vaekit.train(rings(200, 12, seed=1), out=out, epochs=20, **settings)
    return vaekit.load(out)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> TrainedModel:
    """A conditional model of the photos."""
    out = tmp_path_factory.mktemp("runs") / "classes"
    return vaekit.train(photos, out=out, epochs=2, preset="classic", conditional=True, **TINY)


def read(folder: Path, names: list[str]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / name))[..., None] for name in names])


def test_encode_writes_csv_npz_and_parquet(plain: TrainedModel, photos: Path, tmp_path: Path) -> None:
    before = folder_state(photos)
    for suffix in SUFFIXES:
        file = tmp_path / "new" / f"z{suffix}"
        output = command("encode", plain.run.folder, photos, "--out", file)
        assert f"Wrote the latent vectors of 43 images to {file}" in output
    table = pd.read_csv(tmp_path / "new/z.csv")
    assert list(table.columns) == ["file", "label", "z1", "z2", "z3", "z4"]
    assert list(table["file"][:3]) == ["a/0.png", "a/2.png", "a/4.png"] and table["file"][5] == "a/10.png"
    assert set(table["file"]) == {path.relative_to(photos).as_posix() for path in photos.rglob("*.png")}
    assert list(table["label"]) == [name.split("/")[0] if "/" in name else "(none)" for name in table["file"]]
    z = plain.encode(read(photos, list(table["file"])))
    np.testing.assert_allclose(table.iloc[:, 2:].to_numpy(), z, atol=1e-5)
    assert np.abs(np.diff(z, axis=0)).max(1).min() > 1e-3  # no two are alike, so a wrong key would be seen
    with np.load(tmp_path / "new/z.npz", allow_pickle=False) as archive:
        assert list(archive["files"]) == list(table["file"])
        assert list(archive["labels"]) == list(table["label"])
        assert archive["latents"].dtype == np.float32
        np.testing.assert_array_equal(archive["latents"], table.iloc[:, 2:].to_numpy(np.float32))
    parquet = pd.read_parquet(tmp_path / "new/z.parquet")
    pd.testing.assert_frame_equal(parquet, plain.latents(photos, quiet=True), check_dtype=False)
    assert folder_state(photos) == before


def test_latents_of_arrays_keep_order_and_spatial_shape(tmp_path: Path) -> None:
    images = rings(60, 16)
    settings = TINY | {"latents": "3x4x4", "encoder": "conv", "decoder": "conv", "epochs": 1}
    model = vaekit.train(images, out=tmp_path / "run", **settings)
    table = model.latents(images[:30], out=tmp_path / "z.npz", quiet=True)
    assert list(table["file"]) == [f"train/{index}" for index in range(30)]
    assert "label" not in table
    with np.load(tmp_path / "z.npz") as archive:
        assert archive["latents"].shape == (30, 3, 4, 4) and "labels" not in archive
        np.testing.assert_allclose(archive["latents"], model.encode(images[:30]), atol=1e-5)
    np.testing.assert_array_equal(table.iloc[:, 1:], model.latents(images[:30], quiet=True).iloc[:, 1:])


def test_conditional_model_encodes_images_with_their_classes(classes: TrainedModel, photos: Path) -> None:
    table = classes.latents(quiet=True)
    images, labels = read(photos, list(table["file"])), list(table["label"])
    np.testing.assert_allclose(table.iloc[:, 2:], classes.encode(images, labels), atol=1e-5)
    assert not np.allclose(table.iloc[:, 2:], classes.encode(images, "a"), atol=1e-3)
    refused("have no classes, and this model is conditional", classes.latents, photos / "a", quiet=True)


def test_encode_defaults_and_skips(classes: TrainedModel, plain: TrainedModel, tmp_path: Path) -> None:
    for number in (1, 2):
        assert f"latents-{number}.csv" in command("encode", classes.run.folder)
        assert len(pd.read_csv(classes.run.folder / f"latents-{number}.csv")) == 43
    save_images(tmp_path, {f"{index}.png": image for index, image in enumerate(rings(4, 12))})
    (tmp_path / "bad.png").write_bytes(b"")
    assert "Skipped 1 file: bad.png (empty)" in command("encode", plain.run.folder, tmp_path)


def test_encode_checks_output(plain: TrainedModel, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    run, there = plain.run.folder, tmp_path / "there.csv"
    there.write_text("mine")
    assert "already exists. Choose another --out." in mistake("encode", run, photos, "--out", there)
    assert there.read_text() == "mine"
    outputs = {tmp_path / "z.xls": r"\.csv, \.npz or \.parquet", photos / "z.csv": "inside the image folder"}
    for out, output in (outputs | {there / "z.csv": "Cannot write"}).items():
        refused(output, plain.latents, photos, out=out)
    refused("Give a folder of images", plain.latents, quiet=True)
    (tmp_path / "pyarrow.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    output = mistake("encode", run, photos, "--out", tmp_path / "z.parquet", command=NEW_PROCESS)
    assert "pip install 'vaekit[parquet]'" in output and ".csv" in output
    assert not (photos / "z.csv").exists() and not (tmp_path / "z.parquet").exists()


def angles(path: torch.Tensor) -> torch.Tensor:
    unit = path.double() / path.double().norm(dim=1, keepdim=True)
    return (unit[1:] * unit[:-1]).sum(1).clamp(-1, 1).acos()


def test_spherical_interpolation_in_closed_form() -> None:
    a, b = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    path = sampling.interpolate(a, b, 5)
    assert torch.equal(path[0], a) and torch.equal(path[-1], b)
    torch.testing.assert_close(angles(path), torch.full((4,), math.pi / 8).double())
    torch.testing.assert_close(path.norm(dim=1), torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0]))
    middle = sampling.interpolate(a / 3, b, 3)[1]
    torch.testing.assert_close(middle, torch.tensor([1.0, 1.0, 0.0]) / math.sqrt(2))
    middle = sampling.interpolate(a / 3, b, 3, spherical=False)[1]
    torch.testing.assert_close(middle.norm(), torch.tensor(0.5).sqrt())


@pytest.mark.parametrize("b", [[-2.0, 0.0], [1.0, 1e-9], [2.0, 0.0], [0.0, 0.0]], ids=str)
def test_interpolation_is_linear_where_no_circle_is_determined(b: list[float]) -> None:
    one, other = torch.tensor([1.0, 0.0]), torch.tensor(b)
    torch.testing.assert_close(sampling.interpolate(one, other, 3)[1], (one + other) / 2)
    torch.testing.assert_close(sampling.interpolate(other, one, 3)[1], (one + other) / 2)


def test_interpolation_ends_at_reconstructions(plain: TrainedModel, photos: Path, tmp_path: Path) -> None:
    names = ["a/0.png", "b/1.png"]
    ends = read(photos, names)
    path = plain.interpolate(*ends, steps=5)
    assert (path.shape, path.dtype) == ((5, 12, 12, 1), np.uint8)
    np.testing.assert_array_equal(path[[0, -1]], plain.reconstruct(ends))
    np.testing.assert_array_equal(path, plain.interpolate(photos / names[0], ends[1, ..., 0] / 255, steps=5))
    straight = plain.interpolate(*ends, steps=3, how="linear")
    np.testing.assert_array_equal(straight[1:2], plain.decode(plain.encode(ends).mean(0, keepdims=True)))
    assert not np.array_equal(straight[1], path[2])
    refused("must be from 2 to 100", plain.interpolate, *ends, steps=1)
    file = tmp_path / "strip.png"
    command("interpolate", plain.run.folder, *(photos / name for name in names), "--steps", 5, "--out", file)
    with Image.open(file) as strip:
        assert strip.width == 2 * MARGIN + 7 * (96 + GAP) - GAP + 2 * 3 * GAP
        tile = np.asarray(strip.convert("L"))[-MARGIN - 96 : -MARGIN, MARGIN + 96 + 4 * GAP :][::8, :96:8]
    assert np.abs(tile.astype(int) - path[0, ..., 0]).max() <= 1
    arguments = ("interpolate", plain.run.folder, *(photos / name for name in names), "--out", file)
    assert "already exists" in mistake(*arguments)


def test_interpolation_in_a_conditional_model(classes: TrainedModel, photos: Path, tmp_path: Path) -> None:
    one, same, other = (photos / name for name in ("a/0.png", "a/2.png", "b/1.png"))
    np.testing.assert_array_equal(classes.interpolate(one, same), classes.interpolate(one, same, label="a"))
    output = mistake("interpolate", classes.run.folder, one, other)
    assert "is in class 'a'" in output and "in 'b'" in output and "--class" in output
    output = command("interpolate", classes.run.folder, one, other, "--class", "b", "--linear")
    assert "interpolation-1.png" in output


def only_the_third_latent_matters(run: Path) -> TrainedModel:
    """The model with an encoder and a decoder that know one latent alone."""
    model = vaekit.load(run)
    model.model.posterior.head.weight[[0, 1, 3]] = 0
    model.model.posterior.head.weight[2] *= 50
    model.model.decoder.layers.first.weight[:, [0, 1, 3]] = 0
    model.model.decoder.layers.first.weight[:, 2] *= 20
    return model


def test_traversal_sorts_latents_by_activity(classes: TrainedModel, photos: Path) -> None:
    model = only_the_third_latent_matters(classes.run.folder)
    traversal = model.traverse(columns=5, label="a", quiet=True)
    assert (traversal.images.shape, traversal.images.dtype) == ((4, 5, 12, 12, 1), np.uint8)
    assert traversal.latents[0] == 3 and sorted(traversal.latents) == [1, 2, 3, 4]
    np.testing.assert_allclose(traversal.positions, [-2.5, -1.25, 0, 1.25, 2.5])
    names = [f"a/{index}.png" for index in range(0, 40, 2)]
    x = torch.from_numpy(read(photos, names)).permute(0, 3, 1, 2) / 255
    q = model.model.encode(x, torch.zeros(20, dtype=torch.long))
    std = q.mean[:, 2].std(correction=0)
    np.testing.assert_allclose(traversal.activity, [std, 0, 0, 0], rtol=1e-3, atol=1e-6)
    z = q.mean.mean(0).repeat(5, 1)
    z[:, 2] += torch.from_numpy(traversal.positions) * (std.square() + q.variance[:, 2].mean()).sqrt()
    np.testing.assert_allclose(traversal.images[0], model.decode(z.numpy(), "a").astype(int), atol=1)
    assert (traversal.images[1:] == traversal.images[0, 2]).all()  # the others do nothing: the mean
    assert np.abs(traversal.images[0, 0].astype(int) - traversal.images[0, -1]).max() > 20
    one, other = (model.traverse(label=label, quiet=True).images for label in "ab")
    assert not np.array_equal(one, other)
    assert model.traverse(rows=2, columns=3, quiet=True).images.shape[:2] == (2, 3)


def test_traversal_without_training_images_uses_a_standard_normal(plain: TrainedModel) -> None:
    model = only_the_third_latent_matters(plain.run.folder)
    traversal = model.traverse(columns=3, quiet=True)
    assert traversal.latents[0] == 3 and np.isnan(traversal.activity).all()
    expected = model.decode(np.float32([[0, 0, at, 0] for at in (-2.5, 0, 2.5)]))
    np.testing.assert_array_equal(traversal.images[0], expected)
    output = command("traverse", plain.run.folder)
    assert "The training images have moved or changed" in output and "traversal-1.png" in output


def test_traverse_writes_its_picture(classes: TrainedModel, tmp_path: Path) -> None:
    file = tmp_path / "traversal.png"
    assert f"Wrote {file}" in command("traverse", classes.run.folder, "--class", "b", "--out", file)
    traversal = classes.traverse(label="b", quiet=True)
    with Image.open(file) as sheet:
        pixels = np.asarray(sheet.convert("L"))
    last = pixels[-MARGIN - 96 : -MARGIN : 8, -MARGIN - 96 : -MARGIN : 8]
    np.testing.assert_array_equal(last, traversal.images[-1, -1, ..., 0])
    assert "Available: a, b, (none)" in mistake("traverse", classes.run.folder, "--class", "fog")
    refused("`rows`: must be from 1 to 100", classes.traverse, rows=0)


def test_rank_lists_unlikely_images_first(plain: TrainedModel, photos: Path, tmp_path: Path) -> None:
    before, file = folder_state(photos), tmp_path / "order.csv"
    output = command("rank", plain.run.folder, photos, "--samples", 20, "--out", file)
    assert f"Wrote {file} and {tmp_path / 'order.png'}" in output and "43 images by log p(x)" in output
    table = pd.read_csv(file)
    assert list(table.columns) == ["rank", "file", "label", "log_likelihood", "bits_per_dimension"]
    assert list(table["rank"]) == list(range(1, 44))
    assert set(table["file"][:3]) == set(ODD) and output.index("noise") < output.index(table["file"][3])
    assert table["log_likelihood"].is_monotonic_increasing
    files = list(plain.latents(photos, quiet=True)["file"])
    nats = dict(zip(files, plain.log_likelihood(read(photos, files), samples=20), strict=True))
    np.testing.assert_allclose(table["log_likelihood"], [nats[name] for name in table["file"]], rtol=1e-4)
    bits = -table["log_likelihood"] / 144 / math.log(2)
    np.testing.assert_allclose(table["bits_per_dimension"], bits, rtol=1e-4)
    pd.testing.assert_frame_equal(plain.rank(photos, samples=20, quiet=True), table, check_dtype=False)
    with Image.open(tmp_path / "order.png") as sheet:
        top = MARGIN + TITLE_HEIGHT + GAP
        first = np.asarray(sheet.convert("L"))[top : top + 96 : 8, MARGIN : MARGIN + 96 : 8]
    np.testing.assert_array_equal(first, read(photos, [table["file"][0]])[0, ..., 0])
    assert folder_state(photos) == before


def test_rank_refusals(plain: TrainedModel, photos: Path, tmp_path: Path, classes: TrainedModel) -> None:
    (tmp_path / "order.png").write_text("mine")
    output = mistake("rank", plain.run.folder, photos, "--out", tmp_path / "order.csv")
    assert "order.png already exists" in output and (tmp_path / "order.png").read_text() == "mine"
    refused("`samples`: must be a whole number from 1", plain.rank, photos, samples=0)
    refused("takes gray images", plain.rank, rings(10, 12, 3))
    model = vaekit.train(photos, out=tmp_path / "ae", epochs=1, preset="ae", **TINY)
    output = mistake("rank", model.run.folder)
    assert "single point without density" in output and "Train one with --posterior.kind gaussian" in output
    assert len(model.latents(quiet=True)) == 43
    output = command("rank", classes.run.folder, "--samples", 2)
    assert "no bits/dim: p(x | z) is a cross-entropy" in output
    assert "ranking-1.csv" in output and "ranking-1.png" in output
    assert "bits_per_dimension" not in pd.read_csv(classes.run.folder / "ranking-1.csv")


def test_other_images_are_read_without_the_settings_of_the_training_folder(tmp_path: Path) -> None:
    """Patterns and tables mean files of the training data."""
    images = {f"{i}.png": image for i, image in enumerate(rings(20, 12))}
    root = save_images(tmp_path / "set", images)
    labels = "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(20))
    (root / "labels.csv").write_text(f"file,label\n{labels}")
    settings = TINY | {"preset": "classic", "labels": "labels.csv", "exclude": "1.png", "report": False}
    model = vaekit.train(root, out=tmp_path / "run", epochs=1, group=r"\d\d", **settings)
    other = save_images(tmp_path / "other", {name: images[name] for name in ("1.png", "2.png")})
    assert model.latents(other, quiet=True)["file"].tolist() == ["1.png", "2.png"]
    assert len(model.latents(quiet=True)) == 19
    model = vaekit.train(root, out=tmp_path / "b", epochs=1, conditional=True, **settings)
    assert "Wrote 1 image" in command(
        "reconstruct", model.run.folder, root / "4.png"
    )  # its class is in the table


def test_one_image_can_be_ranked(plain: TrainedModel, tmp_path: Path) -> None:
    root = save_images(tmp_path / "one", {"only.png": rings(1, 12)[0]})
    output = command("rank", plain.run.folder, root, "--out", tmp_path / "rank.csv")
    assert "1 image" in output and len(pd.read_csv(tmp_path / "rank.csv")) == 1


def test_many_files_instead_of_a_folder(photos: Path) -> None:
    files = sorted((photos / "a").iterdir())[:3]
    assert mistake("train", *files).endswith(f"Give the folder of the files, {photos / 'a'}.")
