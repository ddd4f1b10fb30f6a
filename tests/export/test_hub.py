"""Publishing to a folder and to a Hub, and loading from there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vaekit
from command import MLP, folder_state, mistake, refused, rings, save_images
from command import vaekit as command
from export.hub_server import TOKEN, Hub, running_hub
from vaekit.errors import UserError
from vaekit.trained_model import TrainedModel

SAVED = {"threads": 1, "quiet": True, "report": False}
PRIVATE = ("Kitchen", "Grandma", "Uncle", "broken", "secret")
"""Parts of the names of the user's folders and files."""
ALLOWED = {"config.json", "dataset.json", "model.safetensors", "latent_prior.safetensors"}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """An evaluated run with names to hide: folder, files, a broken file, copies, patterns, a former run."""
    folder = tmp_path_factory.mktemp("Kitchen secret")
    images = rings(300, 12, 3)
    named = {f"{('cup', 'pot')[i % 2]}/Grandma {i}.png": image for i, image in enumerate(images)}
    photos = save_images(folder / "photos", {**named, "cup/Uncle.png": images[0], "pot/Uncle.png": images[1]})
    (photos / "cup" / "broken.png").write_bytes(b"no image")
    former = vaekit.train(photos, out=folder / "former", epochs=1, **MLP, **SAVED)
    settings: dict[str, Any] = {"copies": "keep", "exclude": "Uncle?.png", "group": r"Grandma (\d+)"}
    model = vaekit.train(
        photos, out=folder / "run", from_run=former.run.folder, epochs=2, **settings, **SAVED
    )
    model.evaluate(samples=2, new_images=50, quiet=True)
    return model


@pytest.fixture(scope="module")
def published(origin: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `vaekit publish` wrote."""
    folder = tmp_path_factory.mktemp("published") / "rings"
    output = command("publish", origin.run.folder, "--to", f"{folder}/", "--license", "CC-BY-4.0")
    assert output.splitlines()[-1] == f"Wrote {folder}"
    return folder


def test_a_published_folder_generates_the_same_images(origin: TrainedModel, published: Path) -> None:
    expected = {*ALLOWED, "evaluation.json", "samples.png", "README.md"}
    if origin.fitted_prior is None:
        expected.remove("latent_prior.safetensors")
    assert {file.name for file in published.iterdir()} == expected
    model = vaekit.load(published)
    np.testing.assert_array_equal(model.sample(70, seed=3), origin.sample(70, seed=3))
    np.testing.assert_array_equal(model.encode(rings(5, 12, 3)), origin.encode(rings(5, 12, 3)))
    assert model.classes == ("cup", "pot")
    assert "Data" in model.report(quiet=True).read_text()  # which needs none of the files that are left out
    model.run.report.unlink()
    refused("not in the run: .* published without them", model.latents)
    refused("published without them", vaekit.train, from_run=published, epochs=1, **SAVED)


def test_nothing_private_is_published(origin: TrainedModel, published: Path) -> None:
    private = [*PRIVATE, str(origin.run.folder.parent)]
    unpublished = b"".join(file.read_bytes() for file in origin.run.folder.iterdir() if file.is_file())
    assert all(text.encode() in unpublished for text in private)  # or this proves nothing
    for file in published.iterdir():
        leaked = [text for text in private if text.encode() in file.read_bytes()]
        assert not leaked, (file.name, leaked)
    evaluation = json.loads((published / "evaluation.json").read_text())
    assert evaluation["diagnosis"] == [] and evaluation["memorization"]["duplicate_files"] == []


def test_the_model_card_has_metadata_for_the_hub(origin: TrainedModel, published: Path) -> None:
    text = (published / "README.md").read_text()
    lines = text.split("---\n")[1].splitlines()
    front = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in lines)}
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "vaekit"
    assert front["pipeline_tag"] == "unconditional-image-generation"
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(text).data  # by YAML
    assert {name: data.to_dict()[name] for name in front if name != "model-index"} == {
        name: value for name, value in front.items() if name != "model-index"
    }
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    evaluation = json.loads(origin.run.evaluation.read_text())
    assert results["psnr"] == evaluation["reconstruction"]["psnr"]
    assert results["nll"] == evaluation["likelihood"]["nll"]
    assert data.model_name == "rings"
    assert "reproduces training images" in text and "suspiciously near" in text
    assert "![New images](samples.png)" in text


def test_the_card_of_another_folder_says_what_is_not_known(tmp_path: Path) -> None:
    settings = MLP | {"prior": {"kind": "vamp", "components": 7}, "conditional": True, "encoder": "conv"}
    names = np.array(["<b>|`x`*", "two\nlines"])[np.arange(60) % 2]
    model = vaekit.train((rings(60), names), out=tmp_path / "run", epochs=1, **settings, **SAVED)
    folder = model.publish(to=tmp_path / "new", license="mit", quiet=True)
    text = Path(folder, "README.md").read_text()
    assert r"| classes | \<b\>\|\`x\`\*, two lines |" in text
    assert "It has not been evaluated." in text and "model-index" not in text
    assert "has not been measured, so it may" in text
    assert "7 images that started as training images" in text
    assert vaekit.load(folder).classes == model.classes


def test_conditions_are_published_without_their_table(tmp_path: Path) -> None:
    images = {f"Grandma {i}.png": image for i, image in enumerate(rings(60))}
    photos = save_images(tmp_path / "Kitchen", images)
    rows = [f"{name},{20 + i % 50}" for i, name in enumerate(images)]
    table = tmp_path / "Kitchen" / "secret.csv"
    table.write_text("\n".join(["file,age", *rows]))
    settings = MLP | {"labels": str(table), "condition": "age", "epochs": 1}
    model = vaekit.train(photos, out=tmp_path / "run", **settings, **SAVED)
    folder = model.publish(to=tmp_path / "new", license="mit", quiet=True)
    for file in Path(folder).iterdir():
        assert not [name for name in PRIVATE if name.encode() in file.read_bytes()], file.name
    assert "conditions of up to 1,024 training images (age)" in Path(folder, "README.md").read_text()
    condition = {"age": 30}
    copy = vaekit.load(folder).sample(3, condition=condition)
    np.testing.assert_array_equal(copy, model.sample(3, condition=condition))


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("rings", "'rings' is neither a folder nor a repository. Write FOLDER/"),
        ("runs/rings", "is a repository or a folder: there is a folder runs here. Write FOLDER/"),
        ("a/b/c", "neither"),
        ("hf:rings", "no address of a model"),
        ("hf:ann/rings@v1", "has a revision"),
    ],
)
def test_targets_that_could_be_misread_are_refused(
    origin: TrainedModel, tmp_path: Path, to: str, message: str
) -> None:
    (tmp_path / "runs").mkdir()
    arguments = ("publish", origin.run.folder, "--license", "mit", "--to", to)
    assert message in mistake(*arguments, cwd=tmp_path)
    assert [*tmp_path.iterdir()] == [tmp_path / "runs"]


def test_publishing_refuses_what_it_must_not_do(
    origin: TrainedModel, published: Path, tmp_path: Path
) -> None:
    run = origin.run.folder
    assert "--license: is required" in mistake("publish", run, "--to", f"{tmp_path}/new/")
    assert not (tmp_path / "new").exists()
    refused("'GPL 3' is no identifier", origin.publish, to=tmp_path / "new", license="GPL 3")
    before = folder_state(published)
    refused("already exists", origin.publish, to=published, license="mit")
    assert folder_state(published) == before
    inside = run.parent / "photos" / "new"
    refused("inside the image folder .* Choose another `to`", origin.publish, to=inside, license="mit")
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 8))
    settings = MLP | {"encoder": linear, "epochs": 1}
    custom = vaekit.train(rings(60), out=tmp_path / "custom", callbacks=[], **settings, **SAVED)
    refused("encoder of this model is a custom module", custom.publish, to=tmp_path / "new", license="mit")


# --- The Hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on loopback, for this process and for commands."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with running_hub() as server:
        environment = {
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # which were read from the environment when huggingface_hub was imported
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
        yield server


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # of how huggingface_hub sends a file
def test_a_model_travels_over_the_hub(
    hub: Hub, origin: TrainedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert origin.publish(to="ann/rings", license="mit", quiet=True) == f"{hub.address}/ann/rings"
    uploaded = hub.repositories["ann/rings"]["main"]
    assert uploaded.keys() >= {"README.md", "samples.png", "model.safetensors"}
    assert b'vaekit.load("hf:ann/rings")' in uploaded["README.md"]
    assert not any(name.encode() in content for content in uploaded.values() for name in PRIVATE)
    uploaded |= {"run.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x04.", "weights.pt": b"\x80\x04."}
    model = vaekit.load("hf:ann/rings")
    assert set(hub.downloaded) <= ALLOWED
    np.testing.assert_array_equal(model.sample(5, seed=1), origin.sample(5, seed=1))
    before = dict(uploaded)
    with pytest.raises(UserError, match=r"hf:ann/rings already has a file README\.md"):
        origin.publish(to="hf:ann/rings", license="mit", quiet=True)
    assert hub.repositories["ann/rings"]["main"] == before


def test_verbs_read_a_model_of_the_hub_and_write_elsewhere(hub: Hub, published: Path, tmp_path: Path) -> None:
    hub.add("ann/rings", files_of(published), revision="v1")
    address = "hf:ann/rings@v1"
    command("generate", address, "-n", 3, "--out", tmp_path / "new")
    assert len([*(tmp_path / "new").glob("*.png")]) == 4
    cache = tmp_path / "hf" / "hub"
    before = folder_state(cache / "models--ann--rings" / "snapshots")
    for verb in (("generate", "-n", 1), ("traverse",), ("encode", published)):
        message = mistake(verb[0], address, *verb[1:], cwd=tmp_path)
        assert "only read. Choose where to write with --out." in message
    for verb in (("report",), ("evaluate", "--data", published)):
        assert "read-only. Copy the run" in mistake(verb[0], address, *verb[1:], cwd=tmp_path)
    assert folder_state(cache / "models--ann--rings" / "snapshots") == before
    vaekit.load(address).save(tmp_path / "copy")
    assert vaekit.load(tmp_path / "copy").classes == ("cup", "pot")
    assert {path.name for path in tmp_path.iterdir()} == {"new", "hf", "copy"}


def test_what_is_not_there_is_said_in_a_sentence(hub: Hub, origin: TrainedModel) -> None:
    hub.add("ann/text", {"README.md": b"", "run.py": b"", "config.json": b"{}"})
    assert "There is no hf:ann/rings, or it is private. Log in" in mistake("generate", "hf:ann/rings")
    assert "ann/text has no revision 'v2'" in mistake("generate", "hf:ann/text@v2")
    assert "no address of a model" in mistake("generate", "hf:rings")
    assert "not a model of vaekit: it has no dataset.json" in mistake("generate", "hf:ann/text")
    assert hub.downloaded == ["config.json"]
    refused("does not permit this for hf:ann/rings.*token", origin.publish, to="hf:ann/rings", license="mit")


def test_without_a_network_the_cache_is_used(
    hub: Hub, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("ann/rings", files_of(published))
    images = vaekit.load("hf:ann/rings").sample(2)
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")  # where nobody answers
    np.testing.assert_array_equal(vaekit.load("hf:ann/rings").sample(2), images)
    with pytest.raises(OSError, match=r"Cannot reach the Hub for hf:ann/other"):
        vaekit.load("hf:ann/other")


def test_the_hub_needs_its_package(published: Path, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['huggingface_hub'] = None; from vaekit.cli.main import main; main()"
    call = [sys.executable, "-c", blocked, "generate", "hf:ann/rings"]
    result = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert result.returncode == 2
    assert "which is not installed. Run `pip install 'vaekit[hub]'`." in result.stderr


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("negative", {"shape": [3, -1, 12]}),
    ("huge", {"shape": [3, 10**9, 10**9]}),
    ("fraction", {"shape": [3, 1.5, 12]}),
    ("format", {"format": 99}),
    ("classes", {"classes": [{"a": 1}]}),
    ("preset", {"config": {"latents": "9x99999x99999"}}),
    ("kind", {"config": {"encoder": {"kind": "__import__('os')"}}}),
    ("wide", {"config": {"encoder": {"kind": "mlp", "hidden": [65536] * 64}}}),
    ("own", {"config": {"encoder": {"kind": "own", "name": "os.system"}}}),
]


@pytest.mark.parametrize(("name", "changes"), HOSTILE, ids=[name for name, _ in HOSTILE])
def test_hostile_settings_are_refused(published: Path, tmp_path: Path, name: str, changes: Any) -> None:
    files = files_of(published)
    record = json.loads(files["config.json"])
    for key, value in changes.items():
        record[key] = {**record[key], **value} if isinstance(value, dict) else value
    write_files(tmp_path / "run", {**files, "config.json": json.dumps(record).encode()})
    assert len(mistake("generate", tmp_path / "run", "-n", 1)) < 500
    for content in (b"", b"[]", b"\xff\xfe", b'{"format": 1}', b"[" * 100_000):
        (tmp_path / "run" / "config.json").write_bytes(content)
        refused("config.json is damaged", vaekit.load, tmp_path / "run")


def test_hostile_weights_are_refused(published: Path, tmp_path: Path) -> None:
    files = files_of(published)
    weights = load_file(published / "model.safetensors")
    name = next(iter(weights))
    for wrong in (
        weights | {name: torch.zeros(3)},
        weights | {"more": torch.zeros(3)},
        {name: weights[name]},
    ):
        write_files(tmp_path / "run", files)
        save_file(wrong, tmp_path / "run" / "model.safetensors")
        refused("does not match this model", vaekit.load, tmp_path / "run")
    content = files["model.safetensors"]
    for wrong_bytes in (content[:-8], content[:100], b"\xff" * 8 + content[8:], b"\x80\x04]q\x00."):
        (tmp_path / "run" / "model.safetensors").write_bytes(wrong_bytes)
        refused("Cannot read", vaekit.load, tmp_path / "run")


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
