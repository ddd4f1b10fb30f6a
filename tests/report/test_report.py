"""The report: one page that loads nothing, says what is so, and survives names and data that are not nice."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

import vaekit
from command import mistake, rings, save_images
from command import vaekit as command
from vaekit.report import images
from vaekit.report.report import _duration
from vaekit.runs.inputs import held_out_images

SMALL = {"kind": "mlp", "hidden": "32"}
TINY: dict[str, Any] = {"epochs": 2, "encoder": SMALL, "decoder": SMALL, "latents": 3, "quiet": True}
HEADINGS = """New images|Diagnosis|Reconstructions|Training curves|Latent traversals|Map of the latent space
Interpolations|Least and most likely images|Evaluation|Data|Reproduce this run"""
HOSTILE = "<script>alert(1) & rain"


class Page(HTMLParser):
    """The tags of a page, the addresses in it, and its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.captions = 0
        self.pictures: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "srcset", "action")
        self.addresses += [value or "" for name, value in attrs if name in names]
        if tag == "img" or ("role", "img") in attrs:
            self.pictures.append(dict(attrs).get("alt" if tag == "img" else "aria-label") or "")
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)
        if self.open[-1:] == ["figcaption"] and data.strip():
            self.captions += 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = {f"{HOSTILE if i % 2 else 'dry'}/{i}.png": image for i, image in enumerate(rings(80, 16, 3))}
    folder = save_images(tmp_path_factory.mktemp("data") / "photos", images)
    (folder / "dry" / "<i>broken.png").write_bytes(b"nothing")
    vaekit.train(folder, out=folder.parent / "run", preset="sigma-vae", **TINY)
    return folder.parent / "run"


def read(run: Path) -> tuple[str, Page]:
    text = (run / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_train_writes_a_self_contained_page(run: Path) -> None:
    text, page = read(run)
    assert not page.open
    assert page.addresses and all(one.startswith(("data:image/png;base64,", "#")) for one in page.addresses)
    assert not {"script", "link", "iframe", "object", "image"} & set(page.tags)
    assert not re.search(r"url\((?!#)", text) and "@import" not in text
    assert page.headings == re.split(r"[|\n]", HEADINGS)
    assert "prefers-color-scheme: dark" in text
    assert "vaekit train" in text and "--preset sigma-vae" in text


def test_names_pictures_and_the_header(run: Path) -> None:
    text, page = read(run)
    assert HOSTILE not in text and "<i>broken" not in text
    assert text.count("&lt;script&gt;alert(1) &amp; rain") > 10
    assert "&lt;i&gt;broken.png" in text and "1 skipped file<" in text
    assert len(page.pictures) > 100 and all(page.pictures)
    assert page.captions == page.tags.count("figcaption") > 3
    contents = re.findall(r'<a href="#([^"]+)"', text)
    assert contents == re.findall(r'<section id="([^"]+)"', text) and len(contents) == 11
    history = vaekit.load(run).history
    assert f"{history['val_loss'].min():,.2f} nats per image" in text
    assert "80 of 16x16 pixels, colour" in text and "2 of 2 epochs" in text
    assert [_duration(seconds) for seconds in (4.4, 200, 3 * 3600 + 61)] == ["4 s", "3 min 20 s", "3 h 1 min"]


def test_evaluation_is_used_only_with_its_weights(run: Path) -> None:
    assert "Quick evaluation on" in read(run)[0]
    evaluation = vaekit.load(run).evaluate(samples=10, quiet=True)
    command("report", run)
    text, _ = read(run)
    assert "Quick evaluation on" not in text and f"{evaluation['likelihood']['nll']:.2f}" in text
    record = json.loads((run / "evaluation.json").read_text())
    others = (record | {"weights_hash": "others"}, {"weights_hash": record["weights_hash"]}, [])
    for other in (*map(json.dumps, others), "x"):
        (run / "evaluation.json").write_text(other)
        vaekit.load(run).report(quiet=True)
        assert "Quick evaluation on" in read(run)[0]


def test_names_with_matplotlib_markup_are_shown_literally(tmp_path: Path) -> None:
    """Dollars begin mathematics, and an underscore hides a line from its key."""
    classes = ["$a_$", "_hidden", "x" * 200]
    images = {f"{classes[i % 3]}/{i}.png": image for i, image in enumerate(rings(60, 16))}
    folder = save_images(tmp_path / "my $1_$ pics", images)
    run = tmp_path / "r $x_$ y"
    mlp = ("--latents", 3, "--encoder.kind", "mlp", "--decoder.kind", "mlp")
    output = command("train", folder, "--out", run, "--epochs", 1, *mlp)
    assert (run / "loss.png").exists() and "Warning" not in output
    assert "Map of the latent space" in read(run)[1].headings
    assert f"vaekit generate '{run}' -n 64" in output


def test_missing_and_damaged_files(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "metrics.csv").unlink()
    command("report", copy)
    assert "metrics.csv is missing" in read(copy)[0]
    (copy / "metrics.csv").write_text("epoch,step,val_loss\n1,1,much\n")
    assert "metrics.csv is damaged" in mistake("report", copy)
    for content in ("", "{", "{}", "[]"):
        (copy / "dataset.json").write_text(content)
        assert "dataset.json is missing or damaged" in mistake("evaluate", copy)


def test_interpolations_of_conditional_models_stay_in_a_class(tmp_path: Path) -> None:
    labels = np.arange(90) % 2
    settings = TINY | {"preset": "classic", "conditional": True, "callbacks": [], "report": False}
    model = vaekit.train((rings(90, 16), labels), out=tmp_path / "run", **settings)
    held_out, _ = held_out_images(model.loaded, (rings(90, 16), labels), True)
    chosen = images._pairs(held_out)
    assert chosen.labels is not None and chosen.labels.tolist() == [0, 0, 1, 1]
    assert len(set(chosen.rows.tolist())) == 4


def test_report_without_the_training_images(tmp_path: Path) -> None:
    vaekit.train(rings(60, 12), out=tmp_path / "run", preset="classic", **TINY)
    assert "Reconstructions" in read(tmp_path / "run")[1].headings  # the array is still at hand
    vaekit.load(tmp_path / "run").report(quiet=True)
    text, page = read(tmp_path / "run")
    assert "moved or changed since training" in text
    assert "New images" in page.headings and "Reconstructions" not in page.headings


SPATIAL = {"preset": "classic", "latents": "2x6x6", "encoder": "conv", "decoder": "conv"}
NARROW = {"preset": "classic", "latents": 1}
KINDS = [{"preset": "ae"}, {"preset": "conditional"}, NARROW, SPATIAL, {"preset": "iaf"}]


@pytest.mark.parametrize("settings", KINDS)
def test_report_of_each_kind_of_model(settings: dict[str, Any], tmp_path: Path) -> None:
    data = (rings(60, 12), np.arange(60) % 3)
    vaekit.train(data, out=tmp_path / "run", **TINY | settings)
    _, page = read(tmp_path / "run")
    assert ("Least and most likely images" in page.headings) == (settings["preset"] != "ae")
    assert {"New images", "Evaluation"} <= set(page.headings)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_report_of_very_few_images(count: int, tmp_path: Path) -> None:
    vaekit.train(rings(count, 12), out=tmp_path / "run", preset="classic", **TINY)
    assert "Evaluation" in read(tmp_path / "run")[1].headings


def test_pca_agrees_with_scikit_learn() -> None:
    z = torch.randn(60, 5) * torch.tensor([3.0, 0.1, 2.0, 1.0, 0.5])
    (coordinates, shares), reference = images.pca(z), PCA().fit(z.double().numpy())
    assert np.allclose(shares, reference.explained_variance_ratio_, atol=1e-5)
    assert np.allclose(coordinates.abs(), np.abs(reference.transform(z.double().numpy())), atol=1e-4)


@pytest.mark.parametrize(("count", "dimensions"), [(50, 4), (5, 12), (1, 3), (2, 1)])
def test_pca_keeps_distances(count: int, dimensions: int) -> None:
    z = torch.randn(count, dimensions) * torch.arange(1, dimensions + 1)
    coordinates, _ = images.pca(z)
    assert coordinates.shape == (count, min(count, dimensions))
    exactly = {"compute_mode": "donot_use_mm_for_euclid_dist"}
    distances = [torch.cdist(points, points, **exactly) for points in (coordinates, z)]
    assert torch.allclose(*distances, atol=1e-4)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no browser")
def test_browser_renders_the_page(run: Path, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,3000")
    command = ["chromium", *options, f"--screenshot={shot}", (run / "report.html").as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    with Image.open(shot) as picture:
        colours = np.asarray(picture.convert("L"))
    assert colours.std() > 20
