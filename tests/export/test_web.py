"""A page that decodes in the browser: its files, and its use in a browser without network."""

import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from pytest import MonkeyPatch

import vaekit
from command import MLP, mistake, refused, rings
from vaekit import TrainedModel
from vaekit.export.web import COLUMNS, DRAWS, PACKAGE, RUNTIME

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE, CLASSES = 16, 3
IMAGES = rings(48, SIZE, 3), np.arange(48) % CLASSES
NETWORK = {"kind": "dcae", "channels": 8, "blocks": 1}
TINY: dict[str, Any] = {"batch_size": 16, "epochs": 2, "quiet": True, "threads": 1, "report": False}
SECOND_STAGE = {"steps": 8, "channels": 8, "blocks": 1, "batch_size": 16}
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
CANVAS = "(c) => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A conditional model whose images come from flow matching."""
    settings = {"preset": "best", "conditional": True, "encoder": NETWORK, "decoder": NETWORK}
    out = tmp_path_factory.mktemp("runs") / "<b>rings & co"
    return vaekit.train(IMAGES, out=out, **TINY | settings | {"flow_matching": SECOND_STAGE})


@pytest.fixture(autouse=True)
def unchecked_shapes(monkeypatch: MonkeyPatch) -> None:
    """Tracing passes symbols as sizes and numbers, which the checks of annotations do not know."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the names of the package's files."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "dist").mkdir()
    for name in RUNTIME:
        (folder / "dist" / name).write_text(name)
    return folder


def export(model: TrainedModel, out: Path, runtime: Path) -> Path:
    with MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        return model.export("web", out, runtime=runtime, quiet=True)


def rows(folder: Path, name: str) -> np.ndarray:
    facts = json.loads((folder / "model.json").read_text())
    where = facts["rows"][name]
    latents = np.fromfile(folder / "latents.bin", "<f4").reshape(-1, facts["size"])
    part: np.ndarray = latents[where["first"] : where["first"] + where["count"]]
    return part


@pytest.fixture(scope="module")
def folder(model: TrainedModel, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model, tmp_path_factory.mktemp("web") / "page", package)


def test_the_folder_has_page_model_and_runtime(folder: Path, model: TrainedModel) -> None:
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert files == {
        *("index.html", "app.js", "map.js", "model.js", "style.css", "decoder.onnx", "prior.onnx"),
        *(
            "model.json",
            "latents.bin",
            "map.png",
            "runtime/LICENSE.txt",
            *(f"runtime/{name}" for name in RUNTIME),
        ),
    }
    facts = json.loads((folder / "model.json").read_text())
    assert facts["title"] == model.run.folder.name and facts["classes"] == ["0", "1", "2"]
    assert facts["weights_sha256"] == model.loaded.weights_hash
    z, labels = rows(folder, "draws"), facts["map"]["labels"]
    assert z.shape == (DRAWS, model.model.latents) and labels[:4] == [0, 1, 2, 0]
    thumbnails = model.decode(z.reshape(-1, *model.model.latent_shape), labels)
    with Image.open(folder / "map.png") as image:
        atlas = (
            np.asarray(image).reshape(-1, SIZE, COLUMNS, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)
        )
    assert np.abs(atlas.astype(int) - thumbnails).max() <= 1


def test_the_map_has_the_principal_components_of_new_latents(folder: Path) -> None:
    z = rows(folder, "draws").astype(np.float64)
    covariance = np.cov(z.T)
    values, vectors = np.linalg.eigh(covariance)
    axes, directions = rows(folder, "axes"), rows(folder, "directions")
    np.testing.assert_allclose(rows(folder, "mean")[0], z.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.abs(np.diag(axes @ vectors[:, [-1, -2]])), 1, atol=1e-4)
    np.testing.assert_allclose((directions**2).sum(1), values[::-1][:12], rtol=1e-4)
    facts = json.loads((folder / "model.json").read_text())
    np.testing.assert_allclose(facts["map"]["places"], (z - z.mean(0)) @ axes.T, atol=1e-3)
    assert facts["map"]["share"] == round(100 * values[-2:].sum() / values.sum())


def test_sliders_of_a_vector_are_its_latents_by_effect(package: Path, tmp_path: Path) -> None:
    """Two of three latents have none."""
    settings = TINY | MLP | {"preset": "classic", "callbacks": [], "epochs": 1}
    model = vaekit.train(rings(30, 12), out=tmp_path / "run", **settings)
    weights = model.model.decoder.state_dict()
    first = next(tensor for tensor in weights.values() if tensor.ndim == 2 and tensor.shape[1] == 3)
    first[:, [0, 2]] = 0
    first[:, 0] = 1e-3 * first[:, 1]
    folder = export(model, tmp_path / "web", package)
    facts = json.loads((folder / "model.json").read_text())
    assert facts["directions"] == ["z2", "z1", "z3"] and facts["classes"] == []
    directions = rows(folder, "directions")
    np.testing.assert_array_equal(directions != 0, np.eye(3)[[1, 0, 2]])
    np.testing.assert_allclose(directions.max(1), rows(folder, "draws").std(0)[[1, 0, 2]], rtol=1e-5)


def test_a_missing_runtime_is_explained(model: TrainedModel, tmp_path: Path) -> None:
    run = model.run.folder
    output = mistake("export", run, "--to", "web", "--out", tmp_path / "web")
    assert f"npm pack {PACKAGE} && tar xf" in output and "add --runtime package." in output
    refused("it has no dist/ort", model.export, "web", tmp_path / "web", runtime=tmp_path)
    assert not (tmp_path / "web").exists()


# --- In a browser ---


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package: $VAEKIT_ONNXRUNTIME_WEB, or from npm."""
    if given := os.environ.get("VAEKIT_ONNXRUNTIME_WEB"):
        return Path(given)
    folder = tmp_path_factory.mktemp("npm")
    try:
        subprocess.run(
            ["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, timeout=240
        )
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"{PACKAGE} cannot be had: {error}")
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder, filter="data")
    return folder / "package"


class Server(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address(folder: Path, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder on a web server, with the real package."""
    folder = Path(shutil.copytree(folder, tmp_path_factory.mktemp("server") / "page"))
    for name in RUNTIME:
        assert (folder / "runtime" / name).read_text() == name
        shutil.copyfile(runtime / "dist" / name, folder / "runtime" / name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=folder))
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", OFFLINE])
        yield started
        started.close()


@pytest.fixture
def page(browser: "Browser", address: str) -> Iterator["Page"]:
    """The page with its first images. It requests nothing from other hosts, and has no errors."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    opened, problems, addresses = context.new_page(), list[str](), list[str]()
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    opened.on("request", lambda request: addresses.append(request.url))
    opened.goto(address)
    opened.wait_for_selector("#status", state="hidden", timeout=120_000)
    yield opened
    assert problems == [] and addresses
    assert all(url.startswith((address, "blob:", "data:")) for url in addresses)
    context.close()


def pixels(page: "Page", selector: str, number: int = 0) -> np.ndarray:
    """RGB of a canvas."""
    height, width, *values = page.locator(selector).nth(number).evaluate(CANVAS)
    return np.array(values, np.int64).reshape(height, width, 4)[..., :3]


def wait_until(page: "Page", condition: Any) -> None:
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen")


def test_the_browser_decodes_what_python_decodes(page: "Page", model: TrainedModel) -> None:
    z = np.random.default_rng(0).standard_normal((5, model.model.latents)).astype(np.float32)
    call = "([z, labels]) => vaekit.decode(new Float32Array(z), labels).then((data) => [...data])"
    decoded = np.array(page.evaluate(call, [z.ravel().tolist(), [2, 1, 0, 1, 2]]))
    expected = model.decode(z.reshape(-1, *model.model.latent_shape), [2, 1, 0, 1, 2])
    assert np.abs(decoded.reshape(expected.shape) - expected.astype(int)).max() <= 1


def test_the_browser_draws_from_the_prior(page: "Page", model: TrainedModel) -> None:
    """Means of latents and of their squares, for each class."""
    call = "(label) => vaekit.draw(200, label).then((all) => all.map(({ z }) => [...z]))"
    assert model.fitted_prior is not None
    for label in range(CLASSES):
        drawn = torch.tensor(page.evaluate(call, label))
        expected = model.fitted_prior.sample_prior(400, torch.full((400,), label))
        for power in (1, 2):
            a, b = drawn**power, expected**power
            error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
            assert ((a.mean(0) - b.mean(0)).abs() < 5 * error).all()


def test_wall(page: "Page", model: TrainedModel) -> None:
    assert page.title() == page.locator("h1").inner_text() == model.run.folder.name  # not as HTML
    tiles = page.locator(".tile")
    assert tiles.count() == 28
    first = pixels(page, ".tile canvas")
    assert first.shape == (SIZE, SIZE, 3) and first.max() > first.min()
    assert (
        page.locator(".tile canvas").first.evaluate("(c) => getComputedStyle(c).imageRendering")
        == "pixelated"
    )
    page.get_by_role("button", name="New images").click()
    wait_until(page, lambda: not np.array_equal(pixels(page, ".tile canvas"), first))
    page.get_by_label("Class").select_option("2")
    wait_until(page, lambda: set(page.locator(".tile span").all_inner_texts()) == {"2"})
    tiles.nth(3).focus()
    page.keyboard.press("Enter")
    assert tiles.nth(3).get_attribute("aria-pressed") == "true" and page.locator("#tray").is_visible()
    np.testing.assert_array_equal(pixels(page, "#selected canvas"), pixels(page, ".tile canvas", 3))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save PNG").click()
    with Image.open(download.value.path()) as image:
        np.testing.assert_array_equal(np.asarray(image)[..., :3], pixels(page, ".tile canvas", 3))
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#tray").is_hidden() and tiles.nth(3).get_attribute("aria-pressed") == "false"


def test_sliders_and_morph(page: "Page") -> None:
    for number in (0, 5):
        page.locator(".tile").nth(number).click()
    ends = [pixels(page, ".tile canvas", number) for number in (0, 5)]
    page.locator("#to-sliders").click()
    wait_until(page, lambda: np.abs(pixels(page, "#slider-image") - ends[1]).max() <= 1)
    start = pixels(page, "#slider-image")
    slider = page.locator("#directions input").first
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    wait_until(page, lambda: not np.array_equal(pixels(page, "#slider-image"), start))
    assert page.locator("#directions output").first.inner_text() == "2.0"
    page.get_by_role("button", name="Reset").click()
    wait_until(page, lambda: np.array_equal(pixels(page, "#slider-image"), start))

    page.locator("#to-morph").click()
    assert page.get_by_role("tab", name="Morph").get_attribute("aria-selected") == "true"
    assert page.locator("#stops canvas").count() == 2
    for place, end in (("1", ends[1]), ("0", ends[0])):
        page.locator("#place").fill(place)
        wait_until(page, lambda end=end: np.abs(pixels(page, "#morph-image") - end).max() <= 1)
    page.get_by_role("button", name="Play").click()
    wait_until(page, lambda: float(page.locator("#place").input_value()) > 0.2)
    page.get_by_role("button", name="Pause").click()


def test_map(page: "Page", model: TrainedModel) -> None:
    page.get_by_role("tab", name="Wall").focus()
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("tab", name="Map").get_attribute("aria-selected") == "true"
    wait_until(page, lambda: pixels(page, "#map-image").shape == (SIZE, SIZE, 3))
    facts = page.evaluate(
        "({ mean: [...vaekit.model.latents.slice(0, vaekit.model.size)], map: vaekit.model.map })"
    )
    places = np.array(facts["map"]["places"])
    box = page.locator("#map-canvas").bounding_box()
    assert box is not None
    scale = min(box["width"], box["height"]) / (2.2 * facts["map"]["extent"])
    number = int(np.abs(places).max(1).argmax())  # at the edge, so that no other is as near
    x, y = places[number] * scale
    page.mouse.move(box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2 - y)
    z = page.evaluate(
        f"[...vaekit.model.latents.slice((vaekit.model.rows.draws.first + {number}) * vaekit.model.size)]"
    )
    z = np.float32(z[: model.model.latents]).reshape(1, *model.model.latent_shape)
    expected = model.decode(z, facts["map"]["labels"][number])[0].astype(int)
    wait_until(page, lambda: np.abs(pixels(page, "#map-image") - expected).max() <= 1)
    page.mouse.click(box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2 - y)
    wait_until(page, lambda: page.locator("#selected canvas").count() == 1)
    shown = pixels(page, "#map-image")
    page.locator("#map-canvas").focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "+"):
        page.keyboard.press(key)
    wait_until(page, lambda: not np.array_equal(pixels(page, "#map-image"), shown))
    page.keyboard.press("Enter")
    wait_until(page, lambda: page.locator("#selected canvas").count() == 2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_400_pixels_in_light_and_dark(page: "Page", scheme: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.locator(".tile").first.click()
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert page.evaluate("document.documentElement.scrollWidth") == 400
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(background) > 600) == (scheme == "light")
