"""A run starts from the weights of another one, for other images, classes and settings."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vaekit
from command import folder_state, mistake, refused, rings, save_images
from command import vaekit as command
from vaekit.runs.commands import train_command
from vaekit.runs.folder import Run
from vaekit.runs.metadata import read_dataset_summary, read_metadata
from vaekit.runs.metrics import read_metrics
from vaekit.trained_model import TrainedModel

SAVED = {"threads": 1, "quiet": True, "report": False, "callbacks": []}
DENSE: dict[str, Any] = {
    "preset": "classic",
    "encoder": {"kind": "mlp", "hidden": [32]},
    "decoder": {"kind": "mlp", "hidden": [32]},
    "latents": 4,
    "batch_size": 16,
    **SAVED,
}
NETWORK = {"kind": "dcae", "channels": 8, "blocks": 1}
LATENT_IMAGE: dict[str, Any] = {
    "preset": "best",
    "encoder": NETWORK,
    "decoder": NETWORK,
    "flow_matching": {"steps": 6, "channels": 8, "blocks": 1, "batch_size": 16},
    "batch_size": 16,
    "epochs": 1,
    **SAVED,
}
STILL: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-30, **SAVED}
"""Settings under which the weights stay what they start from."""
LETTERS = np.array(["b", "d", "e"])


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    out = tmp_path_factory.mktemp("dense") / "run"
    return vaekit.train(rings(), out=out, epochs=30, learning_rate=3e-3, **DENSE)


@pytest.fixture(scope="module")
def latent_image(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return vaekit.train(rings(60, 16), out=tmp_path_factory.mktemp("image") / "run", **LATENT_IMAGE)


def weights(model: TrainedModel) -> dict[str, torch.Tensor]:
    return load_file(model.run.weights)


def line_of(model: TrainedModel) -> str:
    """What log.txt says of where the run started."""
    lines = model.run.log.read_text().splitlines()
    return next(line for line in lines if "Starting from" in line)


def losses(model: TrainedModel) -> list[float]:
    return [row["val_loss"] for row in read_metrics(model.run)]


def test_training_goes_on_where_the_other_run_ended(dense: TrainedModel, tmp_path: Path) -> None:
    before = folder_state(dense.run.folder)
    more = vaekit.train(rings(), out=tmp_path / "more", from_run=dense.run.folder, epochs=1, **SAVED)
    new = vaekit.train(rings(), out=tmp_path / "new", epochs=1, **DENSE)
    assert folder_state(dense.run.folder) == before
    last = min(losses(dense))
    assert losses(more)[0] < last + 0.1 * (losses(new)[0] - last)
    assert more.config.latents == 4 and more.config.training.batch_size == 16
    assert line_of(more).endswith(f"Starting from {dense.run.folder}: all 9 tensors (9,960 weights).")
    record = json.loads(more.run.config.read_text())
    assert record["from_run"] == str(dense.run.folder)
    command_line = train_command(read_metadata(more.run), read_dataset_summary(more.run))
    assert f"from_run={str(dense.run.folder)!r}" in command_line  # of Python, for images in memory
    assert record["config"]["training"]["learning_rate"] == 3e-3


def test_larger_images_take_the_convolutions(latent_image: TrainedModel, tmp_path: Path) -> None:
    model = vaekit.train(rings(60, 32), out=tmp_path / "run", from_run=latent_image.run.folder, **STILL)
    assert (latent_image.config.latents, model.config.latents) == ("4x8x8", "4x16x16")
    old, new = weights(latent_image), weights(model)
    assert [name for name in new if old[name].shape != new[name].shape] == ["decoder.start"]
    assert {name for name in new if name.endswith("weight")} > {"encoder.first.weight"}
    assert all(
        torch.equal(old[name], new[name]) for name in new if name.split(".")[0] in ("encoder", "posterior")
    )
    assert new["decoder.start"].shape == (1, 32, 32) and new["decoder.start"].std() > 0.1  # of the new images
    assert line_of(model).endswith("Not taken: decoder.start (shape 1x16x16, not 1x32x32).")


def test_colour_images_leave_the_layers_at_the_pixels(latent_image: TrainedModel, tmp_path: Path) -> None:
    model = vaekit.train(rings(60, 16, 3), out=tmp_path / "run", from_run=latent_image.run.folder, **STILL)
    *_, reasons = line_of(model).split("Not taken: ")
    assert reasons == (
        "encoder.first.weight (shape 8x1x3x3, not 8x3x3x3), decoder.start (shape 1x16x16, not 3x16x16), "
        "decoder.layers.4.weight (shape 1x8x3x3, not 3x8x3x3) and 1 more."
    )
    old, new = weights(latent_image), weights(model)
    assert torch.equal(old["encoder.rest.0.branch.0.weight"], new["encoder.rest.0.branch.0.weight"])


@pytest.mark.parametrize("prior", ["class", "vamp"])
def test_classes_are_matched_by_name(prior: str, tmp_path: Path) -> None:
    settings = DENSE | {"conditional": True, "prior": {"kind": prior}, "epochs": 2}
    old = vaekit.train((rings(90), LETTERS[np.arange(90) % 3]), out=tmp_path / "old", **settings)
    letters = np.array(["a", "c", "d", "e"])
    data = rings(120), letters[np.arange(120) % 4]
    new = vaekit.train(data, out=tmp_path / "new", from_run=old.run.folder, **STILL)
    other = vaekit.train(data, out=tmp_path / "other", **settings | STILL)
    assert new.classes == ("a", "c", "d", "e")
    embeddings = ["encoder.layers.label.bias.weight", "decoder.layers.label.bias.weight"]
    for name in embeddings + (["prior.loc.weight"] if prior == "class" else []):
        before, after, initial = (weights(model)[name] for model in (old, new, other))
        assert torch.equal(after[2:], before[1:]) and torch.equal(after[:2], initial[:2])
    assert "encoder.layers.label.bias.weight (2 of 4 labels are new)" in line_of(new)
    if prior == "vamp":  # its labels are numbers of classes
        assert torch.equal(weights(new)["prior.labels"], weights(other)["prior.labels"])
        torch.testing.assert_close(weights(new)["prior.pseudo_inputs"], weights(other)["prior.pseudo_inputs"])


def test_what_belongs_to_settings_or_to_other_weights_is_left(dense: TrainedModel, tmp_path: Path) -> None:
    noise = {"kind": "gaussian", "sigma": "fixed", "scale": 0.3}
    shown = vaekit.train(255 - rings(), out=tmp_path / "noise", **DENSE | STILL | {"likelihood": noise})
    louder = vaekit.train(
        rings(),
        out=tmp_path / "louder",
        from_run=shown.run.folder,
        likelihood=noise | {"scale": 0.5},
        **STILL,
    )
    assert weights(louder)["likelihood.log_sigma"].item() == pytest.approx(math.log(0.5))
    assert line_of(louder).endswith("Not taken: likelihood (other settings).")
    assert torch.equal(weights(louder)["encoder.mean"], weights(shown)["encoder.mean"])
    wide = {"kind": "mlp", "hidden": [32, 16]}
    model = vaekit.train(
        255 - rings(), out=tmp_path / "wide", from_run=dense.run.folder, encoder=wide, **STILL
    )
    assert "7 of 11 tensors" in line_of(model)
    assert torch.equal(weights(model)["encoder.mean"], weights(shown)["encoder.mean"])
    assert torch.equal(
        weights(model)["encoder.layers.first.weight"], weights(dense)["encoder.layers.first.weight"]
    )


def test_the_second_stage_starts_from_its_network(latent_image: TrainedModel, tmp_path: Path) -> None:
    slow = {"flow_matching": {"steps": 6, "learning_rate": 1e-30}}
    model = vaekit.train(
        rings(60, 16, seed=1), out=tmp_path / "run", from_run=latent_image.run.folder, **STILL, **slow
    )
    old, new = (load_file(each.run.second_stage.weights) for each in (latent_image, model))
    networks = [name for name in new if name.startswith("network.")]
    changed = [name for name in networks if not torch.equal(old[name], new[name])]
    assert changed == ["network.embedding.label.weight"]
    rows = changed[0], torch.tensor([0, -1])
    assert torch.equal(old[rows[0]][rows[1]], new[rows[0]][rows[1]])  # of the class and of all images
    assert not torch.equal(old["loc"], new["loc"])
    assert "Flow matching starts from" in model.run.log.read_text()


def test_a_run_that_fits_nothing_is_refused(dense: TrainedModel, tmp_path: Path) -> None:
    other = {"out": tmp_path / "new", "from_run": dense.run.folder, **SAVED}
    refused(
        r"No weights of .* fit this model. Not taken: encoder \(mlp, not conv\)",
        vaekit.train,
        rings(),
        preset="classic",
        **other,
    )
    refused("is not a run", vaekit.train, rings(), **other | {"from_run": tmp_path})
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes(dense.run.config.read_bytes())
    refused("no epoch of the run is finished", vaekit.train, rings(), **other | {"from_run": copy})
    (copy / "model.safetensors").write_bytes(dense.run.weights.read_bytes()[:-9])
    refused("Cannot read", vaekit.train, rings(), **other | {"from_run": copy})
    refused("already contains a run", vaekit.train, rings(), **other | {"out": dense.run.folder})
    assert not (tmp_path / "new").exists()


def test_a_resumed_run_continues_exactly(dense: TrainedModel, tmp_path: Path) -> None:
    start = {"from_run": dense.run.folder, "epochs": 3, **SAVED}
    unbroken = vaekit.train(rings(), out=tmp_path / "unbroken", **start)
    parts = tmp_path / "parts"
    vaekit.train(rings(), out=parts, max_minutes=0.0, **start)
    resumed = vaekit.train(rings(), out=parts, resume=True, **start)
    assert losses(resumed) == losses(unbroken)
    assert all(
        torch.equal(a, b) for a, b in zip(weights(resumed).values(), weights(unbroken).values(), strict=True)
    )
    begun = tmp_path / "begun"  # and stopped before its first checkpoint
    shutil.copytree(unbroken.run.folder, begun)
    shutil.rmtree(begun / "checkpoints")
    (begun / "model.safetensors").unlink()
    assert losses(vaekit.train(rings(), out=begun, resume=True, **SAVED)) == losses(unbroken)
    longer = vaekit.train(rings(), out=parts, resume=True, epochs=4, **SAVED)
    assert losses(longer)[:3] == losses(unbroken)
    other = start | {"from_run": parts, "resume": True}
    refused("was started from .*, not from .*. Omit `from_run`", vaekit.train, rings(), out=parts, **other)
    refused("was started without another run", vaekit.train, rings(), out=dense.run.folder, **other)
    refused(
        "start from its weights with from_run=.* and another `out`",
        vaekit.train,
        rings(seed=1),
        out=parts,
        resume=True,
        **SAVED,
    )


def test_settings_that_name_files_hold_for_the_same_folder_only(tmp_path: Path) -> None:
    images = {f"{'ab'[i % 2]}/{i}.png": image for i, image in enumerate(rings(24))}
    first, second = (save_images(tmp_path / name, images) for name in ("first", "second"))
    flags = ("--preset", "classic", "--encoder.kind", "mlp", "--decoder.kind", "mlp", "--no-report")
    command(
        "train", first, "--out", tmp_path / "run", "--include", "a/*", "--epochs", 1, "--threads", 1, *flags
    )
    start = ("train", "--from", tmp_path / "run", "--no-report", "--minutes", 0.01)
    output = command(*start, "--out", tmp_path / "same")  # the images of the run
    assert "12 images" in output and "Plan: " in output
    assert f"Preset: classic, with the settings of {tmp_path / 'run'}" in output
    assert "24 images" in command(*start, second, "--out", tmp_path / "others")
    records = [
        json.loads((tmp_path / name / "config.json").read_text())["config"] for name in ("same", "others")
    ]
    same = Run(tmp_path / "same")
    assert f"--from {tmp_path / 'run'}" in train_command(read_metadata(same), read_dataset_summary(same))
    assert [record["data"]["include"] for record in records] == ["a/*", None]
    assert records[0]["training"]["threads"] == 0
    message = mistake("train", second, "--from", tmp_path / "run", "--preset", "best", cwd=tmp_path)
    assert message.endswith("or --from.")
    assert "Starting from" in command("train", second, "--from", tmp_path / "run", "--plan", cwd=tmp_path)
