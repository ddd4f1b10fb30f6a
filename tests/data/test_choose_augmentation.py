"""Flips and shifts of small folders are chosen by the images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import vaekit
from vaekit.data.choose_augmentation import choose_augmentation, mirror_accuracy
from vaekit.training.plan import make_plan
from vaekit.training.request import TrainRequest


def text(count: int) -> np.ndarray:
    """Words in several places and colours."""
    random, font = np.random.default_rng(0), ImageFont.load_default(size=14)
    images = []
    for _ in range(count):
        image = Image.new("RGB", (48, 48), "white")
        word = "".join(random.choice(list("BCDEFGKLPRSabcdefghk"), 4))
        place, colour = random.integers(2, 28, 2), tuple(random.integers(0, 150, 3).tolist())
        ImageDraw.Draw(image).text(tuple(place.tolist()), word, fill=colour, font=font)
        images.append(np.asarray(image))
    return np.stack(images)


def discs(count: int, everywhere: bool = True) -> np.ndarray:
    """Discs anywhere, or in the left half only."""
    random = np.random.default_rng(1)
    images = []
    for _ in range(count):
        image = Image.new("RGB", (48, 48), "white")
        for _ in range(3):
            x, y = random.integers(3, 34 if everywhere else 18), random.integers(3, 34)
            colour = tuple(random.integers(0, 255, 3).tolist())
            ImageDraw.Draw(image).ellipse((int(x), int(y), int(x) + 9, int(y) + 9), fill=colour)
        images.append(np.asarray(image))
    return np.stack(images)


@pytest.mark.parametrize("count", [100, 400])
def test_mirror_images_are_used_only_where_they_cannot_be_told_apart(count: int) -> None:
    assert choose_augmentation(discs(count)).flip
    assert not choose_augmentation(text(count)).flip
    assert not choose_augmentation(discs(count, everywhere=False)).flip


def test_few_images_are_not_flipped_and_many_are_left_as_they_are() -> None:
    assert not choose_augmentation(discs(60)).flip
    assert choose_augmentation(discs(60)).crop == 1  # the background is white to its edge
    assert choose_augmentation(discs(1001)) == choose_augmentation(discs(20))


def test_images_without_a_flat_border_are_not_shifted() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 48, 48, 3), np.uint8)
    assert choose_augmentation(noise).crop == 0


def test_accuracy_is_that_of_chance_for_symmetric_images_and_high_for_text() -> None:
    def tensor(images: np.ndarray):
        import torch

        return torch.from_numpy(images).permute(0, 3, 1, 2) / 255

    assert abs(mirror_accuracy(tensor(discs(400))) - 0.5) < 0.08
    assert mirror_accuracy(tensor(text(400))) > 0.8


def test_training_says_what_was_chosen_and_settings_override_it() -> None:
    plan = make_plan(TrainRequest(discs(130), quiet=True))
    assert plan.config.data.flip and plan.config.data.crop == 1
    count = plan.pack.count("train")
    assert any(f"{count} training images are few" in line for line in plan.lines)
    assert any("flip=False" in line and "crop=0" in line for line in plan.lines)
    given = make_plan(TrainRequest(discs(130), ({"flip": False},), quiet=True))
    assert not given.config.data.flip and given.config.data.crop == 0
    classic = make_plan(TrainRequest(discs(130), preset="classic", quiet=True))
    assert not classic.config.data.flip


def test_the_choice_is_recorded_and_repeated_by_the_command(tmp_path: Path) -> None:
    network = {"kind": "dcae", "channels": 8, "blocks": 1}
    settings = {"encoder": network, "decoder": network, "flow_matching": {"steps": 2, "channels": 8}}
    model = vaekit.train(discs(130), out=tmp_path / "run", epochs=1, quiet=True, report=False, **settings)
    assert model.config.data.flip
    resumed = vaekit.train(discs(130), out=tmp_path / "run", resume=True, quiet=True, report=False)
    assert resumed.config == model.config
