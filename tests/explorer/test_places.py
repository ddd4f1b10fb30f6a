"""Every picture of the page is what Python computes for the same place."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vaekit
from command import mistake, wait_for
from command import vaekit as command
from explorer.conftest import Client, exploring
from vaekit.runs.inputs import training_pack

NEW = {"kind": "new", "seed": 3, "index": 70}
"""In the second chunk of draws."""


def same(a: np.ndarray, b: np.ndarray, levels: int = 1) -> bool:
    """Whether pictures are the same but for rounding: batches of other sizes differ in the last bits."""
    return int(np.abs(a.astype(int) - b).max()) <= levels


def pixels(model: vaekit.TrainedModel, row: int) -> np.ndarray:
    return np.asarray(training_pack(model.loaded, quiet=True).images[row])[None]


def test_a_new_image_is_that_of_sample(page: Client, model: vaekit.TrainedModel) -> None:
    expected = model.sample(71, seed=3)
    assert same(page.pictures(NEW)[0], expected[70])
    options = {"temperature": 0.5, "prior": "model"}
    assert same(page.pictures({**NEW, **options})[0], model.sample(71, seed=3, **options)[70])
    assert not same(page.pictures({**NEW, **options})[0], expected[70], 5)


def test_an_image_is_shown_as_its_reconstruction(page: Client, model: vaekit.TrainedModel) -> None:
    for row in (0, 100):
        assert same(page.pictures({"kind": "image", "row": row})[0], model.reconstruct(pixels(model, row))[0])
        _, _, body = page.request("POST", "/api/originals", json.dumps({"rows": [row]}))
        assert (np.frombuffer(body, np.uint8).reshape(16, 16, 4)[..., :3] == pixels(model, row)[0]).all()


def test_the_pca_map_decodes_its_plane(page: Client, model: vaekit.TrainedModel) -> None:
    """A place has the latents whose projection it is, and whose other components are those of the mean."""
    z = model.encode(np.asarray(training_pack(model.loaded, quiet=True).images)).reshape(121, -1)
    centred = z - z.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes *= np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))
    _, _, body = page.request("GET", "/api/coordinates/pca")
    coordinates = np.frombuffer(body, np.float32).reshape(-1, 2)
    np.testing.assert_allclose(coordinates, centred @ axes.T, atol=1e-3 * np.abs(coordinates).max())
    at = [1.5, -0.7]
    place = {"kind": "map", "projection": "pca", "at": at}
    expected = model.decode((z.mean(0) + np.array(at) @ axes).reshape(1, *z_shape(model)).astype(np.float32))
    assert same(page.pictures(place)[0], expected[0])
    located = page.post("/api/path", {"places": [place, {"kind": "image", "row": 7}]})["at"]
    np.testing.assert_allclose(located, [at, coordinates[7]], atol=1e-3)


def z_shape(model: vaekit.TrainedModel) -> tuple[int, ...]:
    return model.model.latent_shape


def test_a_morph_goes_from_one_end_to_the_other(page: Client, model: vaekit.TrainedModel) -> None:
    ends = [{"kind": "image", "row": 3}, NEW, {"kind": "image", "row": 5}]
    path = [{"kind": "between", "places": ends, "at": at} for at in (0, 0.25, 0.5, 1)]
    first, between, middle, last = page.pictures(*path)
    a, b, c = page.pictures(*ends)
    assert same(first, a) and same(middle, b) and same(last, c)
    two = [pixels(model, 3)[0], pixels(model, 5)[0]]
    short = {"kind": "between", "places": [ends[0], ends[2]], "at": 0.5}
    assert same(page.pictures(short)[0], model.interpolate(*two, steps=3)[1])
    linear = model.interpolate(*two, steps=3, how="linear")[1]
    assert same(page.pictures({**short, "linear": True})[0], linear)
    assert not same(between, a, 5)


def test_painting_adds_to_one_latent(page: Client, model: vaekit.TrainedModel) -> None:
    z = model.encode(pixels(model, 4))
    z[0, 1, 0, 1] += 3
    place = {"kind": "painted", "of": {"kind": "image", "row": 4}, "cells": [[1, 0, 1, 3.0]]}
    assert same(page.pictures(place)[0], model.decode(z)[0])
    outside = {**place, "cells": [[0, 9, 0, 1.0]]}
    assert "outside the latent image" in page.refused("/api/pictures", {"places": [outside]})


def test_sliders_move_by_standard_deviations(page: Client, model: vaekit.TrainedModel) -> None:
    z = model.encode(np.asarray(training_pack(model.loaded, quiet=True).images)).reshape(121, -1)
    _, lengths, axes = np.linalg.svd(z - z.mean(0), full_matrices=False)
    axis = axes[1] * np.sign(axes[1][np.abs(axes[1]).argmax()])
    base = {"kind": "image", "row": 8}
    place = {"kind": "moved", "of": base, "steps": {"component 2": 2.0}}
    expected = model.decode((z[8] + 2 * lengths[1] / np.sqrt(121) * axis).reshape(1, *z_shape(model)))
    assert same(page.pictures(place)[0], expected[0], 2)
    assert [slider["name"] for slider in page.get("/api/sliders")][:2] == ["component 1", "component 2"]
    unknown = {"kind": "moved", "of": base, "steps": {"direction 99": 1}}
    assert "no direction 'direction 99'" in page.refused("/api/pictures", {"places": [unknown]})


def test_pictures_near_another_are_reproducible(page: Client) -> None:
    base = {"kind": "image", "row": 8}
    near = [{"kind": "near", "of": base, "distance": d, "seed": s} for d, s in ((0, 0), (0.5, 0), (0.5, 1))]
    at_zero, one, other = page.pictures(*near)
    assert same(at_zero, page.pictures(base)[0])
    assert (one == page.pictures(near[1])[0]).all() and not same(one, other, 3)


PLACES: list[dict[str, Any]] = [
    {"kind": "image", "row": 2},
    {"kind": "map", "at": [0.5, 0.25]},
    {"kind": "painted", "of": {"kind": "new"}, "cells": [[0, 0, 0, 2]]},
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: str(place["kind"]))
def test_the_recipe_of_a_picture_makes_it(place: dict[str, Any], page: Client) -> None:
    names: dict[str, Any] = {}
    exec(page.post("/api/recipe", {"place": place})["text"], names)
    assert same(names["image"], page.pictures(place)[0])


def test_the_recipe_of_a_new_image_is_a_command(page: Client, tmp_path: Path) -> None:
    place = {**NEW, "index": 5, "temperature": 0.8}
    text = page.post("/api/recipe", {"place": place})["text"]
    line, note = text.splitlines()
    assert note == "# image 6"
    program, *arguments = shlex.split(line)
    assert program == "vaekit"
    command(*arguments, "--out", tmp_path / "new")
    with Image.open(next((tmp_path / "new").glob("0006*.png"))) as image:
        assert same(np.asarray(image.convert("RGB")), page.pictures(place)[0])


def test_uploads_are_places(page: Client, model: vaekit.TrainedModel, run: Path) -> None:
    file = sorted((run.parent / "photos" / "round").glob("*.png"))[4]
    status, _, body = page.request("POST", "/api/upload?name=mine.png", file.read_bytes())
    facts = json.loads(body)
    assert (
        status == 200
        and facts["nearest"]["distance"] < 1
        and facts["nearest"]["file"] == f"round/{file.name}"
    )
    with Image.open(file) as image:
        expected = model.reconstruct(np.asarray(image)[None])[0]
    assert same(page.pictures({"kind": "upload", "id": facts["id"]})[0], expected)
    assert 1 <= facts["rank by log-likelihood"] <= facts["images"] + 1 and facts["posterior width"] > 0
    status, _, body = page.request("POST", "/api/upload?name=text.png", b"this is no image")
    assert status == 400 and b"text.png" in body


def test_a_direction_separates_groups(page: Client) -> None:
    """Bright rings against dark ones, by the images' own pixels."""
    rows = list(range(121))
    _, _, body = page.request("POST", "/api/originals", json.dumps({"rows": rows}))
    bright = np.frombuffer(body, np.uint8).reshape(121, 16, 16, 4)[..., :3].mean((1, 2, 3))
    order = np.argsort(bright)
    direction = page.post("/api/direction", {"a": mask(order[:40]), "b": mask(order[-40:])})
    assert direction["accuracy"] > 0.8
    at = [
        {"kind": "moved", "of": {"kind": "map", "at": [0, 0]}, "steps": {direction["name"]: t}}
        for t in (-2, 0, 2)
    ]
    low, middle, high = page.pictures(*at).mean((1, 2, 3))
    assert low < middle < high
    overlapping = {"a": mask(order[:40]), "b": mask(order[30:80])}
    assert "10 images are in both groups" in page.refused("/api/direction", overlapping)
    assert "at least two images" in page.refused(
        "/api/direction", {"a": mask(order[:1]), "b": mask(order[5:])}
    )


def mask(rows: np.ndarray) -> str:
    import base64

    bits = np.zeros(121, np.uint8)
    bits[rows] = 1
    return base64.b64encode(np.packbits(bits, bitorder="little").tobytes()).decode()


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, vaekit.TrainedModel]]:
    """The explorer of a conditional model with a vector of latents, on the bundled sample."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        out = tmp_path_factory.mktemp("vectors") / "run"
        settings = {"preset": "conditional", "epochs": 1, "latents": 4, "report": False, "quiet": True}
        model = vaekit.train(out=out, **settings)
        with exploring(out) as client:
            yield client, model


def test_a_conditional_model_decodes_the_class_of_an_image(
    vectors: tuple[Client, vaekit.TrainedModel],
) -> None:
    client, model = vectors
    facts = client.get("/api/image/12")
    reconstruction = model.reconstruct(pixels(model, 12), facts["class"])[0]
    assert same(client.pictures({"kind": "image", "row": 12})[0], np.repeat(reconstruction, 3, -1))
    label = model.classes[1]
    place = {"kind": "new", "index": 2, "label": label}
    expected = model.sample(3, label=label)[2]
    assert same(client.pictures(place)[0], np.repeat(expected, 3, -1))
    assert "Unknown class 'x'" in client.refused("/api/pictures", {"places": [{**place, "label": "x"}]})
    names: dict[str, Any] = {}
    exec(client.post("/api/recipe", {"place": {"kind": "image", "row": 12}})["text"], names)
    assert same(names["image"], reconstruction)


def test_sliders_of_a_vector_are_its_most_active_latents(
    vectors: tuple[Client, vaekit.TrainedModel],
) -> None:
    client, _ = vectors
    sliders = client.get("/api/sliders")
    values = [float(slider["about"].split()[0]) for slider in sliders]
    assert values == sorted(values, reverse=True) and values[0] > 0.01
    assert all(slider["name"].startswith("latent ") for slider in sliders)
    cells = {"kind": "painted", "of": {"kind": "image", "row": 0}, "cells": [[0, 0, 0, 1]]}
    assert "no latent image" in client.refused("/api/pictures", {"places": [cells]})


def test_columns_of_a_table_colour_the_map(copy_of_run: Path, tmp_path: Path) -> None:
    table = tmp_path / "attributes.csv"
    table.write_text("file,weight,kind\nround/001.png,2.5,old\nround/003.png,,new\n")
    with exploring(copy_of_run, "--table", table) as client:
        columns = {column["name"]: column for column in client.get("/api/info")["columns"]}
        assert columns["kind"]["categories"] == ["new", "old"] and columns["weight"]["range"] == [2.5, 2.5]
        facts = [client.get(f"/api/image/{row}") for row in range(121)]
        known = {one["file"]: (one["weight"], one["kind"]) for one in facts if one["kind"]}
        assert known == {"round/001.png": (2.5, "old"), "round/003.png": (None, "new")}
    missing = tmp_path / "missing.csv"
    assert f"{missing} does not exist" in mistake("explore", copy_of_run, "--table", missing)


def test_the_t_sne_map_is_computed_once_and_decodes_the_nearest_images(
    copy_of_run: Path, model: vaekit.TrainedModel
) -> None:
    with exploring(copy_of_run) as client:
        place = {"kind": "map", "projection": "tsne", "at": [0.5, -0.5]}
        assert "not computed yet" in client.refused("/api/pictures", {"places": [place]})
        client.post("/api/tsne", {})
        wait_for(lambda: "tsne" in client.get("/api/info")["projections"], seconds=120)
        _, _, body = client.request("GET", "/api/coordinates/tsne")
        coordinates = np.frombuffer(body, np.float32).reshape(-1, 2)
        nearest = np.argsort(((coordinates - place["at"]) ** 2).sum(1))[:8]
        z = model.encode(np.asarray(training_pack(model.loaded, quiet=True).images))[nearest].mean(0)
        assert same(client.pictures(place)[0], model.decode(z[None])[0], 2)
        assert neighbors_agree(coordinates, model) > 2 * 8 / 121  # twice as often as by chance
    with exploring(copy_of_run) as client:  # which reads it
        wait_for(lambda: "tsne" in client.get("/api/info")["projections"], seconds=60)
        assert client.request("GET", "/api/coordinates/tsne")[2] == body


def neighbors_agree(coordinates: np.ndarray, model: vaekit.TrainedModel) -> float:
    """The share of the eight nearest images on a map that are among the eight nearest by latents."""
    z = model.encode(np.asarray(training_pack(model.loaded, quiet=True).images)).reshape(len(coordinates), -1)
    near = [np.square(each[:, None] - each[None]).sum(-1).argsort(1)[:, 1:9] for each in (coordinates, z)]
    return float(np.mean([len(set(a) & set(b)) / 8 for a, b in zip(*near, strict=True)]))
