"""Notebooks show images as a grid, and a model with its facts; arrays of images stay arrays."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaekit
from command import rings
from vaekit.plots.notebook import NOTEBOOK_IMAGES, ImageArray, html_card


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_shown_as_a_grid(channels: int) -> None:
    images = np.zeros((3, 5, 7, channels), np.uint8).view(ImageArray)
    png = images._repr_png_()
    assert png is not None
    with Image.open(io.BytesIO(png)) as sheet:
        assert sheet.format == "PNG" and sheet.width > sheet.height


def test_many_images_are_shown_in_part() -> None:
    images = np.zeros((NOTEBOOK_IMAGES + 1, 4, 4, 1), np.uint8)
    sizes = []
    for part in (images[:NOTEBOOK_IMAGES], images):
        with Image.open(io.BytesIO(part.view(ImageArray)._repr_png_() or b"")) as sheet:
            sizes.append(sheet.size)
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] < sizes[1][1]  # a title says so


@pytest.mark.parametrize("shape", [(0, 4, 4, 1), (4, 4, 1), (2, 4, 4, 2)])
def test_other_arrays_are_shown_as_text(shape: tuple[int, ...]) -> None:
    assert np.zeros(shape, np.uint8).view(ImageArray)._repr_png_() is None
    assert np.zeros((2, 4, 4, 1)).view(ImageArray)._repr_png_() is None


def test_image_arrays_behave_like_plain_arrays() -> None:
    plain = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3)
    images = plain.view(ImageArray)
    for result in (images[0], images[:2], images[1, 0], images / 255, images == plain, np.asarray(images)):
        assert type(result) is np.ndarray
    assert images[0, 0, 0, 1] == 1 and images.sum() == plain.sum() and images.max() == 47
    assert images.base is plain and np.array_equal(images, plain) and "48" not in repr(images)
    assert torch.equal(torch.from_numpy(images), torch.from_numpy(plain))
    assert np.array_equal(pickle.loads(pickle.dumps(images)), plain)
    images[0] = 7
    assert (plain[0] == 7).all()


def test_models_show_facts_and_their_images_are_image_arrays(tmp_path: Path) -> None:
    card = html_card("<script>", {"a & b": "<i>"}, Image.new("RGB", (4, 4)))
    assert "<script>" not in card and "<i>" not in card and "a &amp; b" in card and "data:image/png" in card
    data = (rings(40, 12), np.arange(40) % 2)
    settings = {"epochs": 1, "conditional": True, "encoder": "mlp", "decoder": "mlp", "latents": 2}
    model = vaekit.train(data, out=tmp_path / "run", report=False, quiet=True, **settings)
    card = model._repr_html_()
    assert "40 of 12x12 pixels, gray" in card and "1 of 1 epochs" in card and "data:image/png;base64," in card
    images = model.sample(3)
    for result in (images, model.reconstruct(images, 0), model.decode(np.zeros((3, 2)), 0)):
        assert isinstance(result, ImageArray) and result.shape == (3, 12, 12, 1) and result.dtype == np.uint8
    assert isinstance(model.interpolate(images[0], images[1], label=0), ImageArray)
