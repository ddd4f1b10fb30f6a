"""Tiles, directions, projections and the decoder, by themselves."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from command import user_error
from vaekit.explorer.decoder import Decoder
from vaekit.explorer.directions import separate
from vaekit.explorer.places import read_places
from vaekit.explorer.tiles import PER_TILE, Tiles
from vaekit.latents.projection import mean_of_neighbors, principal_components

RANDOM = np.random.default_rng(0)


def test_principal_components_are_those_of_scikit_learn() -> None:
    z = RANDOM.normal(size=(500, 6)) @ RANDOM.normal(size=(6, 6)) + 3
    ours, theirs = principal_components(z.astype(np.float32)), PCA(6).fit(z)
    signs = np.sign((ours.components * theirs.components_).sum(1, keepdims=True))
    np.testing.assert_allclose(ours.components * signs, theirs.components_, atol=1e-4)
    np.testing.assert_allclose(ours.variances, theirs.explained_variance_ * 499 / 500, rtol=1e-4)
    at = RANDOM.normal(size=(10, 2))
    np.testing.assert_allclose(ours.project(ours.invert(at)), at, atol=1e-5)


def test_one_latent_has_a_map() -> None:
    pca = principal_components(RANDOM.normal(size=(20, 1)))
    assert pca.project(np.ones((3, 1))).shape == (3, 2) and (pca.project(np.ones((3, 1)))[:, 1] == 0).all()


def test_a_place_of_a_map_without_inverse_is_the_mean_of_the_nearest_images() -> None:
    coordinates, z = RANDOM.normal(size=(50, 2)), RANDOM.normal(size=(50, 3))
    at = np.array([[0.3, -0.2]])
    nearest = np.argsort(((coordinates - at) ** 2).sum(1))[:8]
    np.testing.assert_allclose(mean_of_neighbors(coordinates, z, at)[0], z[nearest].mean(0))


def test_tiles_have_the_images_inside_them() -> None:
    coordinates = RANDOM.normal(size=(3000, 2)).astype(np.float32)
    tiles = Tiles(coordinates, np.zeros((3000, 40, 20, 3), np.uint8))
    for level in (0, 2, 6):
        cells = np.minimum(((coordinates - tiles.low) / tiles.edge * 2**level).astype(int), 2**level - 1)
        for x, y in {(int(x), int(y)) for x, y in cells[:50]}:
            inside = set(np.flatnonzero((cells == (x, y)).all(1)).tolist())
            shown = set(tiles.rows(level, x, y).tolist())
            assert shown <= inside and len(shown) == min(len(inside), PER_TILE)
    with user_error("There is no tile 4, 0 of level 2"):
        tiles.rows(2, 4, 0)


def test_an_image_that_is_shown_from_afar_is_shown_nearby() -> None:
    coordinates = RANDOM.uniform(size=(2000, 2)).astype(np.float32)
    tiles = Tiles(coordinates, np.zeros((2000, 8, 8, 1), np.uint8))
    afar = set(tiles.rows(0, 0, 0).tolist())
    nearby = {row for x in (0, 1) for y in (0, 1) for row in tiles.rows(1, x, y).tolist()}
    assert len(afar) == PER_TILE and afar <= nearby


def test_thumbnails_are_means_of_pixels() -> None:
    images = RANDOM.integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    small = Tiles(RANDOM.uniform(size=(4, 2)), images).thumbnails(np.array([2]))[0]
    assert small.shape == (32, 32, 3)
    assert abs(float(small[3, 5, 1]) - images[2, 6:8, 10:12, 1].mean()) <= 0.5


def test_a_direction_changes_what_differs_between_groups_and_what_goes_along_with_it() -> None:
    """Groups differ in the first latent; the second follows it in all images, the third does not."""
    first = RANDOM.normal(size=4000)
    second = first + 0.1 * RANDOM.normal(size=4000)
    z = np.stack([first, second, RANDOM.normal(size=4000)], 1).astype(np.float32)
    direction = separate(z, first < -0.5, first > 0.5)
    np.testing.assert_allclose(direction.step, [1, 1, 0], atol=0.1)  # one standard deviation of the images
    assert direction.accuracy > 0.97


def test_the_accuracy_of_a_direction_is_on_held_out_images() -> None:
    """Forty images in a hundred dimensions are always separable; what is not there is not direction."""
    z = RANDOM.normal(size=(400, 100)).astype(np.float32)
    a, b = np.zeros(400, bool), np.zeros(400, bool)
    a[:20], b[20:40] = True, True
    assert separate(z, a, b).accuracy < 0.75


def test_of_a_stream_the_latest_request_is_decoded() -> None:
    calls: list[int] = []
    gate = threading.Event()

    def pictures(places: Sequence[Any]) -> np.ndarray:
        calls.append(len(places))
        if len(calls) == 1:
            gate.wait(10)
        return np.array([[[[place.row]]] for place in places], np.uint8)

    async def scene() -> list[Any]:
        decoder = Decoder(pictures)
        place = [read_places([{"kind": "image", "row": row}], 1) for row in range(5)]
        tasks = [asyncio.create_task(decoder.decode("slider", place[0]))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(decoder.decode("slider", place[row])) for row in (1, 2)]
        tasks += [asyncio.create_task(decoder.decode("wall", place[3]))]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(*tasks)

    first, second, third, wall = asyncio.run(scene())
    assert second is None  # another request of the slider came before its turn
    assert [images.item() for images in (first, third, wall)] == [0, 2, 3]
    assert calls == [1, 2]  # what waited was decoded together


def test_an_error_of_one_request_is_not_that_of_others() -> None:
    def pictures(places: Sequence[Any]) -> np.ndarray:
        if any(place.row == 1 for place in places):
            raise ValueError("no such image")
        return np.array([[[[place.row]]] for place in places], np.uint8)

    async def scene() -> list[Any]:
        decoder = Decoder(pictures)
        requests = [
            decoder.decode(str(row), read_places([{"kind": "image", "row": row}], 1)) for row in range(3)
        ]
        return await asyncio.gather(*requests, return_exceptions=True)

    zero, one, two = asyncio.run(scene())
    assert zero.item() == 0 and isinstance(one, ValueError) and two.item() == 2


NOT_PLACES: list[Any] = [
    None,
    [],
    [{}],
    [{"kind": "map"}],
    [{"kind": "map", "at": [0, float("nan")]}],
    [{"kind": "map", "at": [1e300, 0]}],
    [{"kind": "image", "row": -1}],
    [{"kind": "image", "row": 0, "file": "/etc/passwd"}],
    [{"kind": "new", "index": 10**9}],
    [{"kind": "near", "of": {"kind": "near", "of": 3}}],
    [{"kind": "between", "places": [{"kind": "image", "row": 0}], "at": 0.5}],
]


@pytest.mark.parametrize("given", NOT_PLACES, ids=lambda given: str(given)[:50])
def test_what_is_not_a_place_is_refused(given: Any) -> None:
    with user_error():
        read_places(given, 4)


def test_places_inside_places_are_limited() -> None:
    place: dict[str, Any] = {"kind": "image", "row": 0}
    for _ in range(5):
        place = {"kind": "near", "of": place}
    read_places([place], 1)
    for _ in range(2000):
        place = {"kind": "near", "of": place}
    with user_error("inside each other"):
        read_places([place], 1)
