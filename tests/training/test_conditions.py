"""Models that are conditioned on columns of a table, from training to new images."""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytest import LogCaptureFixture, MonkeyPatch
from safetensors.torch import load_file

import vaekit
from command import mistake, save_images, user_error
from command import vaekit as run_vaekit
from vaekit.errors import Interrupted
from vaekit.models.flow_matching import FlowMatching
from vaekit.trained_model import TrainedModel
from vaekit.training.callbacks import Callback, TrainingState
from vaekit.training.plan import make_plan
from vaekit.training.request import TrainRequest
from vaekit.training.second_stage import LatentPictures

PLACES = {"left": (9, 1), "right": (9, 9), "top": (1, 5)}
MLP = {"kind": "mlp", "hidden": [128]}
SMALL: dict[str, Any] = {
    "preset": "classic",
    "encoder": MLP,
    "decoder": MLP,
    "latents": 2,
    "batch_size": 16,
    "learning_rate": 0.002,
    "validation": 0.2,
    "threads": 1,
    "compile": "off",
    "quiet": True,
    "report": False,
}
SECOND_STAGE = {"latent_prior": "flow_matching", "flow_matching": {"steps": 240, "channels": 8, "blocks": 1}}


def squares(folder: Path, count: int = 240) -> Path:
    """Gray images of a square, and a table of its brightness, its place, and whether there is a border."""
    random = np.random.default_rng(0)
    images, rows = {}, [("file", "brightness", "place", "border")]
    for number in range(count):
        image = random.integers(20, 28, (16, 16, 1), dtype=np.uint8)
        brightness, place, border = random.integers(60, 240), list(PLACES)[number % 3], number % 2
        row, column = PLACES[place]
        image[row : row + 6, column : column + 6] = brightness
        if border:
            image[[0, -1]] = image[:, [0, -1]] = 255
        images[f"{number}.png"] = image
        rows.append((f"{number}.png", str(brightness), place, ["no", "yes"][border]))
    save_images(folder, images)
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainedModel]:
    with MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield trained(data, tmp_path_factory.mktemp("runs") / "run", epochs=60)


def trained(data: Path, out: Path, **settings: Any) -> TrainedModel:
    columns = ["brightness", "place", "border"]
    return vaekit.train(data, out=out, labels="table.csv", condition=columns, **SMALL | settings)


def place_of(image: np.ndarray) -> str:
    """The place at which the image is brightest."""
    inside = {name: image[r : r + 6, c : c + 6].mean() for name, (r, c) in PLACES.items()}
    return max(inside, key=inside.__getitem__)


def test_new_images_have_the_conditions(model: TrainedModel) -> None:
    def inside(brightness: int) -> float:
        images = model.sample(16, condition={"brightness": brightness, "place": "top", "border": "no"})
        return float(images[:, 2:6, 6:10].mean())

    assert [inside(level) for level in (80, 150, 220)] == pytest.approx([80, 150, 220], abs=25)
    for place in PLACES:
        images = model.sample(16, condition=f"place={place},brightness=200,border=0")
        assert sum(place_of(image) == place for image in images) >= 15
    plain, framed = (model.sample(16, condition={"border": border})[:, 0].mean() for border in (0, "yes"))
    assert plain < 80 and framed > 200


def test_new_images_without_conditions_have_those_of_training_images(model: TrainedModel, data: Path) -> None:
    names = model.sample_labels(40)
    assert names is not None
    with (data / "table.csv").open() as file:
        known = {
            f"brightness={row['brightness']}\nplace={row['place']}\nborder={row['border']}"
            for row in csv.DictReader(file)
        }
    assert set(names) <= known and len(set(names)) > 30
    images = model.sample(40)
    assert sum(f"place={place_of(image)}" in name for image, name in zip(images, names, strict=True)) >= 38
    np.testing.assert_array_equal(model.sample(3), images[:3])


def test_what_is_not_given_is_average_and_unusual_numbers_are_warned_of(
    model: TrainedModel, caplog: LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model.sample(1, condition={"brightness": 900})
    assert "brightness=900 is far from the training images, with 60 to 238." in caplog.text
    assert "Not given: place, border, which are at their averages" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        model.sample(1, condition={"brightness": 200, "place": "top", "border": True})
    assert not caplog.text


def test_unknown_conditions_are_refused(model: TrainedModel) -> None:
    with user_error(r"no condition 'hair'. Conditions: brightness \(number, 60 to 238\), place"):
        model.sample(1, condition={"hair": "red"})
    with user_error("'place' has no value 'bottom'. It has left, right, top"):
        model.sample(1, condition="place=bottom")
    with user_error("'brightness' is a number"):
        model.sample(1, condition="brightness=high")
    with user_error("'border' is no or yes"):
        model.sample(1, condition="border=maybe")
    with user_error("conditions instead of classes"):
        model.sample(1, label="left")
    with user_error("'place' has no value. Write such as"):
        model.sample(1, condition="place")


def test_images_are_encoded_and_decoded_with_conditions(model: TrainedModel, data: Path) -> None:
    images = model.sample(6, condition="place=left,brightness=200,border=no")
    with user_error("needs the conditions of every image"):
        model.encode(images)
    one = {"place": "left", "brightness": 200, "border": "no"}
    moved = model.decode(model.encode(images, one), [one, *[{**one, "place": "right"}] * 5])
    assert [place_of(image) for image in moved] == ["left", *["right"] * 5]
    ends = model.interpolate(data / "0.png", data / "1.png", steps=5)[[0, -1]]
    assert [place_of(image) for image in ends] == ["left", "right"]
    assert {place_of(image) for image in model.traverse(quiet=True, condition=one).images[0]} == {"left"}
    assert model.traverse(quiet=True).images.shape[:2] == (2, 11)


def test_the_training_folder_has_its_conditions_and_others_the_average(
    model: TrainedModel, data: Path, tmp_path: Path
) -> None:
    assert model.evaluate(samples=10, quiet=True)["same_dataset"]
    other, run = squares(tmp_path / "other", 24), model.run.folder
    assert "unknown" not in run_vaekit("rank", run, data, "--out", tmp_path / "known.csv")
    text = run_vaekit("rank", run, other, "--out", tmp_path / "unknown.csv")
    assert f"The conditions of {other} are unknown: using the average" in " ".join(text.split())
    known, unknown = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("known", "unknown"))
    assert len(known) == 240 and len(unknown) == 24
    known = known[known["file"].isin(unknown["file"])]  # the same images
    assert known["log_likelihood"].mean() > unknown["log_likelihood"].mean() + 10


def test_commands(model: TrainedModel, data: Path, tmp_path: Path) -> None:
    run = model.run.folder
    text = run_vaekit(
        "generate", run, "-n", 2, "--condition", "place=left,border=no", "--out", tmp_path / "new"
    )
    assert "Not given: brightness, which is at its average of the training images." in text
    assert "0001-brightness-" in " ".join(path.name for path in (tmp_path / "new").iterdir())
    rows = pd.read_csv(tmp_path / "new" / "metadata.csv")
    assert [*rows.columns[:5]] == ["file_name", "brightness", "place", "border", "seed"]
    assert set(rows["place"]) == {"left"} and set(rows["border"]) == {"no"}
    run_vaekit("reconstruct", run, data / "0.png", data / "1.png", "--out", tmp_path / "pairs")
    outside = save_images(tmp_path / "x", {"0.png": np.zeros((16, 16, 1), np.uint8)}) / "0.png"
    assert "Give them with --condition: brightness (number" in mistake("reconstruct", run, outside)
    run_vaekit("reconstruct", run, outside, "--condition", "place=top", "--out", tmp_path / "one")
    run_vaekit("report", run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "place=left" in page and "place (one of left, right, top)" in page
    settings = "--labels", "table.csv", "--condition", "place"
    assert "exclude each other" in mistake("train", data, *settings, "--conditional", "--out", tmp_path / "r")
    assert "Add --labels" in mistake("train", data, "--condition", "place", "--out", tmp_path / "r")


def test_a_stopped_run_resumes_exactly(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    class Stop(Callback):
        def on_epoch_end(self, state: TrainingState, result: Any, row: Any) -> None:
            state.stop_requested = True

    settings, data = {**SECOND_STAGE, "epochs": 2}, squares(tmp_path / "squares", 60)
    unbroken = trained(data, tmp_path / "whole", **settings)
    with pytest.raises(Interrupted):
        trained(data, tmp_path / "parts", callbacks=[Stop()], **settings)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="latent prior"):
        patch.setattr(LatentPictures, "on_epoch_end", Stop.on_epoch_end)
        trained(data, tmp_path / "parts", resume=True, **settings)
    parts = trained(data, tmp_path / "parts", resume=True, **settings)
    for file in ("model.safetensors", "latent_prior/model.safetensors"):
        one, two = (load_file(run.run.folder / file) for run in (unbroken, parts))
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one), file
    table = data / "table.csv"
    table.write_text(table.read_text().replace("left", "right", 1))
    with user_error("was trained on other images"):
        trained(data, tmp_path / "parts", resume=True, **settings)


@pytest.mark.parametrize("condition", [None, "place"])
def test_images_with_conditions_are_not_flipped_unless_told(
    data: Path, tmp_path: Path, condition: str | None
) -> None:
    settings: dict[str, Any] = {"labels": "table.csv", "condition": condition} if condition else {}
    lines = make_plan(TrainRequest(data, (settings,), out=tmp_path / "run", quiet=True)).lines
    assert any("not flipped, since conditions" in line for line in lines) == (condition is not None)
    assert any("flipped at random" in line for line in lines) == (condition is None)


def test_flow_matching_on_the_latents_is_given_the_conditions(data: Path, tmp_path: Path) -> None:
    settings = {**SECOND_STAGE, "epochs": 8, "prior": "class"}
    model = trained(data, tmp_path / "run", **settings)
    scores = model.fit_prior(quiet=True)["nats_per_held_out_image"]
    assert "flow matching" in scores and all(np.isfinite(list(scores.values())))
    prior = model.run.second_stage
    weights = load_file(prior.weights)
    assert weights["network.embedding.label.weight"].shape[0] == 1 + 1 + 3 + 1  # numbers, and whether given
    assert model.sample(5, condition="place=left", prior="model").shape == (5, 16, 16, 1)
    if isinstance(model.fitted_prior, FlowMatching):
        weak, strong = (model.sample(4, condition="place=left", guidance=w) for w in (1.0, 4.0))
        assert (weak != strong).any()


def test_a_run_starts_from_another_one_with_its_conditions_by_name(
    model: TrainedModel, data: Path, tmp_path: Path
) -> None:
    table = (data / "table.csv").read_text().splitlines()[:61]
    rows = [f"{line.replace('left', 'below')},{n % 7}" for n, line in enumerate(table[1:])]
    folder = tmp_path / "others"
    save_images(folder, {f"{n}.png": np.full((16, 16, 1), n, np.uint8) for n in range(60)})
    (folder / "t.csv").write_text("\n".join([f"{table[0]},angle", *rows]))
    settings: dict[str, Any] = {"labels": "t.csv", "condition": "angle,border,place", "threads": 1}
    settings |= {"epochs": 1, "learning_rate": 1e-30, "quiet": True, "report": False}
    new = vaekit.train(folder, out=tmp_path / "run", from_run=model.run.folder, **settings)
    log = new.run.log.read_text()
    assert "encoder.layers.label.bias.weight (2 of 5 labels are new)" in log and "condition_rows" in log
    old_rows, rows_now = (
        load_file(each.run.weights)["decoder.layers.label.bias.weight"] for each in (model, new)
    )
    names = ["brightness", "place=left", "place=right", "place=top", "border"]
    for row, name in ((1, "border"), (3, "place=right"), (4, "place=top")):
        torch.testing.assert_close(rows_now[row], old_rows[names.index(name)], rtol=0, atol=0)
    conditions = load_file(new.run.weights)["condition_rows"]
    assert set(conditions[:, 1].tolist()) == {0.0, 1.0} and len(conditions[:, 0].unique()) == 7
