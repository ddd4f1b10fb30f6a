"""The second stage: flow matching on the latents, trained by the same loop and resumed exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest import MonkeyPatch
from safetensors.torch import load_file

import vaekit
from command import rings
from command import vaekit as command
from vaekit.config.config import Config, auto_latents
from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import open_pack
from vaekit.errors import Interrupted, UserError
from vaekit.models.flow_matching import FlowMatching
from vaekit.runs.metrics import read_metrics
from vaekit.training import lengths
from vaekit.training.callbacks import Callback, TrainingState
from vaekit.training.loop import EpochResult
from vaekit.training.second_stage import EncodedSplit, LatentLoader, second_stage

NETWORK = {"kind": "dcae", "channels": 8, "blocks": 1}
SMALL: dict[str, Any] = {
    "preset": "best",
    "encoder": NETWORK,
    "decoder": NETWORK,
    "flow_matching": {"steps": 6, "channels": 8, "blocks": 1, "batch_size": 16},
    "batch_size": 16,
    "threads": 1,
    "quiet": True,
    "report": False,
}
COLOUR = np.repeat(rings(60, 12), 3, axis=3)


def test_new_images_come_from_flow_matching_where_it_is_better(tmp_path: Path) -> None:
    """Or where validation images are too few to compare it with others, as here."""
    model = vaekit.train(COLOUR, out=tmp_path / "run", epochs=2, **SMALL)
    assert (tmp_path / "run/latent_prior/metrics.csv").read_text().count("\n") == 2
    prior = model.run.second_stage
    assert prior.weights.exists()
    pictures = sorted(path.name for path in (tmp_path / "run/samples").iterdir())
    assert pictures == ["epoch_0001.png", "epoch_0002.png", "latent_prior_epoch_0001.png"]
    assert "the model's own prior" in model.fit_prior(quiet=True)["nats_per_held_out_image"]
    assert isinstance(model.fitted_prior, FlowMatching)  # fitting again does not replace it
    np.testing.assert_array_equal(model.sample(3, seed=1), model.sample(70, seed=1)[:3])
    command("generate", tmp_path / "run", "-n", 2, "--out", tmp_path / "new")
    table = "file_name,seed\n0001.png,0\n0002.png,0\n"  # without densities, which would take longer
    assert (tmp_path / "new" / "metadata.csv").read_text() == table


@pytest.mark.parametrize("stage", ["epoch", "latent prior"])
def test_a_run_stopped_in_either_stage_resumes_exactly(stage: str, tmp_path: Path) -> None:
    class Stop(Callback):
        def on_epoch_end(self, state: TrainingState, result: EpochResult, row: dict[str, float]) -> None:
            state.stop_requested = state.name == stage

    settings = SMALL | {"flow_matching": SMALL["flow_matching"] | {"steps": 240}}
    unbroken = vaekit.train(COLOUR, out=tmp_path / "whole", epochs=2, **settings)
    from vaekit.training.second_stage import LatentPictures

    original = LatentPictures.on_epoch_end
    try:
        if stage == "latent prior":
            LatentPictures.on_epoch_end = Stop.on_epoch_end  # type: ignore[assignment,method-assign]
        with pytest.raises(Interrupted, match="Stopped in"):
            vaekit.train(
                COLOUR,
                out=tmp_path / "parts",
                epochs=2,
                callbacks=[Stop()] if stage == "epoch" else [],
                **settings,
            )
    finally:
        LatentPictures.on_epoch_end = original  # type: ignore[method-assign]
    parts = vaekit.train(COLOUR, out=tmp_path / "parts", epochs=2, resume=True, **settings)
    for file in ("model.safetensors", "latent_prior/model.safetensors"):
        one, two = (load_file(run.run.folder / file) for run in (unbroken, parts))
        assert all(torch.equal(one[name], two[name]) for name in one), file


def test_time_decides_the_number_of_steps(tmp_path: Path) -> None:
    settings = {**SMALL, "flow_matching": {"channels": 8, "blocks": 1}}
    model = vaekit.train(COLOUR, out=tmp_path / "run", minutes=0.02, **settings)
    training = model.config.training
    assert training.epochs >= 1
    assert training.steps_per_epoch >= 1
    assert model.config.flow_matching.steps >= 1
    assert model.config.latents == "4x12x12"
    assert len(model.history) == training.epochs
    resumed = vaekit.train(COLOUR, out=tmp_path / "run", resume=True, minutes=0.02, **settings)
    assert resumed.config == model.config


@pytest.mark.parametrize(("given", "enough"), [(False, True), (True, True), (False, False)])
def test_networks_are_wider_where_there_is_time_for_enough_steps(
    given: bool, enough: bool, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    for stage, widths in (("autoencoder", (32, 40)), ("flow_matching", (64, 72))):
        monkeypatch.setitem(lengths.WIDTHS, stage, widths)
        if enough:
            monkeypatch.setitem(lengths.WIDE_STEPS, stage, 0)
    settings: dict[str, Any] = {**SMALL, "encoder": {"kind": "dcae"}, "decoder": {"kind": "dcae"}}
    settings["flow_matching"] = {}
    if given:
        settings |= {"encoder": {"channels": 32}, "flow_matching": {"channels": 64}}
    config = vaekit.train(COLOUR, out=tmp_path / "run", minutes=0.03, **settings).config
    chosen = config.encoder.channels, config.decoder.channels, config.flow_matching.channels
    assert chosen == ((40, 40, 72) if enough and not given else (32, 32, 64))


@pytest.mark.parametrize(
    ("latents", "enough", "chosen"),
    [("auto", True, "8x12x12"), ("4x12x12", True, "4x12x12"), ("auto", False, "4x12x12")],
)
def test_latents_have_more_channels_where_there_is_time_for_enough_steps(
    latents: str, enough: bool, chosen: str, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "DETAIL_COMPRESSION", 0)
    if enough:
        monkeypatch.setattr(lengths, "DETAIL_STEPS", 0)
    settings = {**SMALL, "encoder": {"kind": "dcae"}, "decoder": {"kind": "dcae"}}
    model = vaekit.train(COLOUR, out=tmp_path / "run", minutes=0.03, latents=latents, **settings)
    assert model.config.latents == chosen and model.sample(2).shape == (2, 12, 12, 3)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert ("There is time for latents of 8x12x12. For 4x12x12: latents='4x12x12'." in log) == (
        chosen[0] == "8"
    )
    resumed = vaekit.train(COLOUR, out=tmp_path / "run", resume=True, minutes=0.03, **settings)
    assert resumed.config == model.config


def test_the_second_stage_is_no_longer_than_there_are_images_for(
    tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "SECOND_STAGE_STEPS", 3)
    monkeypatch.setattr(lengths, "SECOND_STAGE_PASSES", 0)
    settings = SMALL | {"flow_matching": {"channels": 8, "blocks": 1}}
    model = vaekit.train(COLOUR, out=tmp_path / "run", minutes=0.05, **settings)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert model.config.flow_matching.steps == 3
    assert "then flow matching on the latents, about 0 s" in log  # the first stage has the rest of the time


def test_mirror_images_are_encoded_as_well_where_training_images_are_flipped(tmp_path: Path) -> None:
    encoded = []

    class Look(Callback):
        def on_saved(self, state: TrainingState) -> None:
            encoded.append(second_stage(state).loader.splits)

    for flip in (False, True):
        vaekit.train(COLOUR, out=tmp_path / f"{flip}", epochs=1, flip=flip, callbacks=[Look()], **SMALL)
    plain, mirrored = encoded
    assert len(mirrored["train"].x) == 2 * len(plain["train"].x)
    assert len(mirrored["validation"].x) == len(plain["validation"].x)


def test_steps_and_guidance_are_those_of_flow_matching(tmp_path: Path) -> None:
    flow_matching = SMALL["flow_matching"] | {"steps": 60, "learning_rate": 0.02}
    settings = SMALL | {"flow_matching": flow_matching}
    model = vaekit.train(COLOUR, out=tmp_path / "run", epochs=1, **settings)
    few, many = (model.sample(4, steps=steps) for steps in (1, 60))
    assert (few != many).any() and (model.sample(4, steps=20) == model.sample(4)).all()
    with pytest.raises(UserError, match="images have classes"):
        model.sample(4, guidance=2.0)
    with pytest.raises(UserError, match="come from flow matching"):
        model.sample(4, steps=5, prior="model")
    with pytest.raises(UserError, match="between 1 and 1,000"):
        model.sample(4, steps=0)


def test_the_second_stage_can_be_trained_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", x=COLOUR)
    model = vaekit.train(tmp_path / "images.npz", out=tmp_path / "run", epochs=1, **SMALL)
    first, later = model.run, model.run.second_stage
    weights, rows = first.weights.read_bytes(), len(read_metrics(later))
    model.fit_prior(steps=12, quiet=True)
    assert read_metrics(later)[-1]["step"] == 12 and len(read_metrics(later)) > rows
    assert first.weights.read_bytes() == weights
    with pytest.raises(UserError, match="cannot be lowered"):
        model.fit_prior(steps=3, quiet=True)
    assert first.loss_graph.exists()


def test_automatic_latents_have_at_most_twelve_pixels_on_a_side() -> None:
    sizes = {(3, 64, 64): "4x8x8", (1, 28, 28): "4x7x7", (3, 96, 50): "4x12x7", (3, 12, 12): "4x12x12"}
    assert {shape: auto_latents(shape) for shape in sizes} == sizes
    assert auto_latents((3, 512, 512)) == "4x32x32"
    assert Config(latents="auto").with_latents((3, 32, 32)).latent_shape == (4, 8, 8)


def test_every_encoding_is_drawn_once_before_any_is_drawn_again() -> None:
    x = torch.arange(10.0)[:, None].expand(-1, 2)
    splits = {"train": EncodedSplit(x, torch.arange(10)), "validation": EncodedSplit(x[:3], None)}
    loader = LatentLoader(splits, 4, 5, seed=0, device=torch.device("cpu"))
    drawn = torch.cat([y for epoch in (0, 1) for _, y in loader.train(epoch) if y is not None])
    assert [sorted(drawn[start : start + 10].tolist()) for start in (0, 10, 20, 30)] == [list(range(10))] * 4
    assert drawn[:10].tolist() != drawn[10:20].tolist()
    later = torch.cat([y for _, y in loader.train(1, start=2) if y is not None])
    assert torch.equal(later, drawn[28:])
    assert [len(part) for part, _ in loader.split("validation", size=2)] == [2, 1]


def test_epochs_of_other_lengths_draw_the_same_batches(tmp_path: Path) -> None:
    pack = open_pack(rings(50, 8), Config().data, quiet=True)

    def batches(per_epoch: int) -> list[torch.Tensor]:
        loader = ImageLoader(pack, Config().data, 10, 0, torch.device("cpu"), steps_per_epoch=per_epoch)
        assert loader.steps_per_epoch == (per_epoch or loader.steps_per_pass)
        return [x for epoch in range(12) for x, _ in loader.train(epoch)][:12]

    passes = batches(0)
    for per_epoch in (1, 2, 5, 12):
        assert all(torch.equal(a, b) for a, b in zip(passes, batches(per_epoch), strict=True))


def test_a_flow_matching_prior_is_saved_and_loaded(tmp_path: Path) -> None:
    model = vaekit.train(COLOUR, out=tmp_path / "run", epochs=1, **SMALL)
    assert isinstance(model.fitted_prior, FlowMatching)
    model.save(tmp_path / "copy")
    np.testing.assert_array_equal(vaekit.load(tmp_path / "copy").sample(5), model.sample(5))


def test_latents_have_noise_in_the_default_for_colour_images_only(tmp_path: Path) -> None:
    def noise(name: str, images: np.ndarray, **settings: Any) -> float:
        settings = {**SMALL, "epochs": 1, **settings}
        return vaekit.train(images, out=tmp_path / name, **settings).config.training.latent_noise

    gray, one = rings(60, 12), {"flow_matching": {"steps": 1, "channels": 8, "blocks": 1}}
    assert noise("colour", COLOUR, **one) == 0.5 and noise("gray", gray, **one) == 0
    assert noise("given", gray, latent_noise=0.3, **one) == 0.3
    assert noise("vamp", COLOUR, preset="vamp", latents=4, encoder={}, decoder={}, flow_matching={}) == 0
