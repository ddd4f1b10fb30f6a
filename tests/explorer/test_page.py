"""The page in a real browser, driven by clicks and keys; its pictures are compared with Python's."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import vaekit
from explorer.conftest import HOSTILE, Client, exploring, train_run
from vaekit.runs.inputs import training_pack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
GRAPHICS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
CANVAS = """(element) => {
  const { width, height } = element;
  return [height, width, ...element.getContext("2d").getImageData(0, 0, width, height).data];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(GRAPHICS))
        yield started
        started.close()


@pytest.fixture
def tab(browser: "Browser", page: Client) -> Iterator["Page"]:
    """The page, which makes no request to another host, has no errors, and breaks no content policy."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    opened, problems = context.new_page(), []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    opened.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    hosts: set[str] = set()
    opened.goto(f"http://127.0.0.1:{page.port}/?token={page.token}")
    opened.wait_for_selector(".legend button, .legend .ramp")
    yield opened
    assert not problems and hosts == {f"127.0.0.1:{page.port}"}
    context.close()


def pixels_of(tab: "Page", selector: str) -> np.ndarray:
    """RGB of a canvas."""
    height, width, *values = tab.locator(selector).first.evaluate(CANVAS)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def shows(tab: "Page", selector: str, expected: np.ndarray) -> None:
    """Wait until a canvas shows a picture, within rounding."""
    for _ in range(100):
        if tab.locator(selector).count():
            shown = pixels_of(tab, selector)
            if shown.shape == expected.shape and np.abs(shown.astype(int) - expected).max() <= 1:
                return
        tab.wait_for_timeout(100)
    raise AssertionError(f"{selector} does not show the picture")


def until(tab: "Page", expression: str) -> None:
    """Wait until an expression of JavaScript is true. The content policy forbids the driver's own way."""
    for _ in range(100):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(100)
    raise AssertionError(f"not true: {expression}")


def point_of(tab: "Page", page: Client, row: int) -> tuple[float, float]:
    """Where an image lies on the screen, when the whole map is shown."""
    _, _, body = page.request("GET", "/api/coordinates/pca")
    xy = np.frombuffer(body, np.float32).reshape(-1, 2)
    box = tab.locator(".map").bounding_box()
    assert box
    low, high = xy.min(0), xy.max(0)
    scale = 0.92 * min(box["width"] / (high - low)[0], box["height"] / (high - low)[1])
    middle = (low + high) / 2
    x = box["x"] + box["width"] / 2 + (xy[row, 0] - middle[0]) * scale
    y = box["y"] + box["height"] / 2 - (xy[row, 1] - middle[1]) * scale
    return float(x), float(y)


def lonely_row(page: Client) -> int:
    """The image that is farthest from all others on the map."""
    _, _, body = page.request("GET", "/api/coordinates/pca")
    xy = np.frombuffer(body, np.float32).reshape(-1, 2)
    distances = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(xy))
    return int(distances.min(1).argmax())


def test_an_image_of_the_map_is_shown_on_hover_and_on_a_click(
    tab: "Page", page: Client, model: vaekit.TrainedModel
) -> None:
    row = lonely_row(page)
    original = np.asarray(training_pack(model.loaded, quiet=True).images[row])
    tab.mouse.move(*point_of(tab, page, row))
    shows(tab, ".hover canvas", original)
    tab.mouse.down()
    tab.mouse.up()
    shows(tab, "#inspector figure:nth-child(1) canvas", original)
    shows(tab, "#inspector figure:nth-child(2) canvas", model.reconstruct(original[None])[0])
    assert f'"row":{row}' in tab.evaluate("new URLSearchParams(location.hash.slice(1)).get('place')")


def test_any_place_of_the_map_decodes(tab: "Page", page: Client) -> None:
    tab.click("button:text-is('Decode')")
    box = tab.locator(".map").bounding_box()
    assert box
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"]
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 50, y + 40, steps=8)
    tab.mouse.up()
    tab.wait_for_selector("#inspector .pair")
    place = tab.evaluate("JSON.parse(new URLSearchParams(location.hash.slice(1)).get('place'))")
    assert place["kind"] == "map"
    expected = page.pictures(place)[0]
    shows(tab, ".probe", expected)
    shows(tab, "#inspector .pair canvas", expected)
    assert "first two components" in tab.inner_text(".note")


def test_the_map_moves_by_keys_and_the_address_holds_the_view(tab: "Page", page: Client) -> None:
    tab.focus(".map")
    for key in ("+", "+", "ArrowLeft", "ArrowUp"):
        tab.keyboard.press(key)
    until(tab, "location.hash.includes('view=')")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#inspector .pair canvas")
    before = tab.evaluate("location.hash")
    shown = pixels_of(tab, "#inspector .pair canvas")
    tab.reload()
    shows(tab, "#inspector .pair canvas", shown)
    assert tab.evaluate("new URLSearchParams(location.hash.slice(1)).get('view')") in before.replace(
        "%2C", ","
    )


def test_near_images_are_thumbnails(tab: "Page", page: Client) -> None:
    tab.focus(".map")
    with tab.expect_response(lambda response: "/api/tile/pca/" in response.url) as tile:
        for _ in range(6):
            tab.keyboard.press("+")
    assert tile.value.status == 200


def test_a_selection_makes_groups_and_these_a_direction(tab: "Page", page: Client) -> None:
    tab.click("button:text-is('Select')")
    box = tab.locator(".map").bounding_box()
    assert box
    left, top, right, bottom = (
        box["x"] + 5,
        box["y"] + 5,
        box["x"] + box["width"] - 5,
        box["y"] + box["height"] - 5,
    )
    middle = (left + right) / 2
    for name, (x0, x1) in (("A", (left, middle - 2)), ("B", (middle + 2, right))):
        tab.mouse.move(x0, top)
        tab.mouse.down()
        for x, y in ((x1, top), (x1, bottom), (x0, bottom), (x0, top)):
            tab.mouse.move(x, y, steps=3)
        tab.mouse.up()
        tab.click(f"button:text-is('Make group {name}')")
    tab.click("#tab-sliders")
    tab.click("button:text-is('Direction from A to B')")
    slider = tab.locator("input[aria-label^='direction']").last
    slider.fill("1.5")
    name = slider.get_attribute("aria-label")
    moved = {"kind": "moved", "of": {"kind": "new", "seed": 0, "index": 0}, "steps": {name: 1.5}}
    shows(tab, ".paint canvas.picture", page.pictures(moved)[0])
    assert "% right on held-out images" in tab.inner_text(".sliders")


def test_sliders_move_the_picture_and_are_undone(tab: "Page", page: Client) -> None:
    base = {"kind": "new", "seed": 0, "index": 0}
    tab.click("#tab-sliders")
    shows(tab, ".paint canvas.picture", page.pictures(base)[0])
    slider = tab.locator("input[aria-label='component 1']")
    slider.focus()
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
    moved = {"kind": "moved", "of": base, "steps": {"component 1": 0.15}}
    shows(tab, ".paint canvas.picture", page.pictures(moved)[0])
    tab.click("button:text-is('Reset')")
    shows(tab, ".paint canvas.picture", page.pictures(base)[0])
    cells = tab.locator(".cells").bounding_box()
    assert cells
    tab.mouse.click(cells["x"] + 2, cells["y"] + 2)
    painted = {"kind": "painted", "of": base, "cells": [[0, 0, 0, 2]]}
    shows(tab, ".paint canvas.picture", page.pictures(painted)[0])
    tab.click("button:text-is('Undo')")
    shows(tab, ".paint canvas.picture", page.pictures(base)[0])


def test_the_wall_shows_the_images_of_sample(tab: "Page", model: vaekit.TrainedModel) -> None:
    tab.click("#tab-wall")
    expected = model.sample(3, seed=5)
    tab.fill("input[type='number']", "5")
    tab.keyboard.press("Enter")
    for index in range(3):
        shows(tab, f".wall .tile:nth-child({index + 1}) canvas", expected[index])
    tab.click(".wall .tile:nth-child(2)")
    shows(tab, "#inspector .pair canvas", expected[1])
    tab.click("button:text-is('Copy recipe')")
    tab.wait_for_selector("#inspector pre:not([hidden])")
    assert "vaekit generate" in tab.inner_text("#inspector pre") and "--seed 5" in tab.inner_text(
        "#inspector pre"
    )


def test_a_morph_is_scrubbed_and_saved(tab: "Page", page: Client, tmp_path: Path) -> None:
    tab.click("#tab-wall")
    for index in (1, 2):
        tab.click(f".wall .tile:nth-child({index})")
        tab.wait_for_selector(f"#inspector h2:has-text('New image {index},')")
        tab.click("button:text-is('Add to morph')")
    tab.click("#tab-morph")
    ends = [{"kind": "new", "seed": 0, "index": index} for index in (0, 1)]
    canvas = "#view-morph canvas.picture"
    shows(tab, canvas, page.pictures({"kind": "between", "places": ends, "at": 0})[0])
    tab.locator("input[aria-label='Position']").fill("0.5")
    shows(tab, canvas, page.pictures({"kind": "between", "places": ends, "at": 0.5})[0])
    tab.locator("input[aria-label='Position']").fill("0")
    tab.click("button:text-is('Play')")
    until(tab, "Number(document.querySelector('input[aria-label=Position]').value) > 0.1")
    from PIL import Image

    for text, name, frames in (("Save GIF", "morph.gif", 31), ("Save strip", "morph.png", 1)):
        with tab.expect_download() as download:
            tab.click(f"button:text-is('{text}')")
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert getattr(image, "n_frames", 1) in range(max(1, frames - 8), frames + 1)


def test_a_picture_is_taken(tab: "Page", page: Client, run: Path, model: vaekit.TrainedModel) -> None:
    file = sorted((run.parent / "photos" / "round").glob("0*.png"))[2]
    tab.set_input_files("#file", str(file))
    tab.wait_for_selector("#inspector dl")
    from PIL import Image

    with Image.open(file) as image:
        shows(tab, "#inspector figure:nth-child(2) canvas", model.reconstruct(np.asarray(image)[None])[0])
    assert f"Nearest training image: round/{file.name}" in tab.inner_text("#inspector")


def test_losses_and_pictures_of_the_training_are_shown(tab: "Page") -> None:
    tab.click("#tab-training")
    tab.wait_for_selector("svg.chart path.train")
    until(tab, "[...document.querySelectorAll('.compare img')].every((image) => image.naturalWidth > 100)")


def test_names_are_shown_as_text(tab: "Page") -> None:
    assert HOSTILE in tab.inner_text(".legend")
    tab.click("#tab-map")
    assert tab.evaluate("document.title") != "pwned" and tab.locator("img[src='x']").count() == 0


def test_tabs_are_reached_by_keys(tab: "Page") -> None:
    tab.focus("#tab-map")
    names = []
    for _ in range(5):
        tab.keyboard.press("ArrowRight")
        names.append(tab.evaluate("document.activeElement.textContent"))
        assert tab.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    assert names == ["Wall", "Sliders", "Morph", "Training", "Map"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_no_tab_is_wider_than_the_window(width: int, scheme: Any, browser: "Browser", page: Client) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(f"http://127.0.0.1:{page.port}/?token={page.token}")
    tab.wait_for_selector(".legend button")
    folder = os.environ.get("VAEKIT_SCREENSHOTS")  # to look at them
    for name in ("map", "wall", "sliders", "morph", "training"):
        tab.click(f"#tab-{name}")
        tab.wait_for_timeout(300)
        widths = "[...document.querySelectorAll('html, .scroll, .bar, aside')].map((e) => e.scrollWidth)"
        assert max(tab.evaluate(widths)) <= width
        if folder:
            tab.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png")
    context.close()


def test_maps_of_other_weights_are_not_shown(run: Path, tmp_path: Path) -> None:
    """A run that is trained on has other latents, in a folder of their own."""
    from vaekit.latents.image_latents import image_latents

    first = vaekit.load(run)
    before = image_latents(first.loaded)
    other = train_run(tmp_path, latent_prior="density", seed=1)
    moved = Path(shutil.copytree(run, tmp_path / "copy"))
    shutil.copy(other.run.folder / "model.safetensors", moved / "model.safetensors")
    after = image_latents(vaekit.load(moved).loaded)
    assert after.folder.name != before.folder.name and not np.allclose(after.means, before.means)
    with exploring(moved) as client:
        _, _, body = client.request("GET", "/api/coordinates/pca")
    assert not np.allclose(np.frombuffer(body, np.float32), page_coordinates(before))


def page_coordinates(latents: Any) -> np.ndarray:
    from vaekit.latents.projection import fit_pca

    return fit_pca(latents).project(latents.means).ravel()
