"""ONNX files compute what the model computes, in onnxruntime, without torch and vaekit."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from pytest import MonkeyPatch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution
from zuko.transforms import ComposedTransform

import vaekit
from command import MLP, NEW_PROCESS, mistake, refused, rings, save_images, start, wait_for
from command import vaekit as command
from vaekit import TrainedModel
from vaekit.config.overrides import resolve
from vaekit.config.presets import PRESETS
from vaekit.export.parts import choose, latents_of_noise
from vaekit.models.distributions.latents import (
    DiagonalGaussian,
    Flow,
    FullGaussian,
    Mixture,
    MixtureOfClass,
)
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.registry import Capability
from vaekit.runs.checkpoint import write_prior

SIZE, CLASSES = 16, 3
IMAGES = rings(48, SIZE), np.arange(48) % CLASSES
TINY: dict[str, Any] = {"batch_size": 16, "epochs": 1, "quiet": True, "threads": 1, "report": False}
SECOND_STAGE = {"steps": 4, "channels": 8, "blocks": 1, "batch_size": 16}
WITHOUT_TORCH = (
    "import runpy, sys; sys.modules |= dict.fromkeys(['torch', 'vaekit']); runpy.run_path(sys.argv[1])"
)
Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def unchecked_shapes(monkeypatch: MonkeyPatch) -> None:
    """Tracing passes symbols as sizes and numbers, which the checks of annotations do not know."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def inference(preset: str) -> str:
    """The settings of a preset that decide what a trained model computes."""
    return resolve(preset=preset).model_dump_json(exclude={"objective", "training", "data", "flow_matching"})


ALIKE: dict[str, list[str]] = {}
"""Presets with the same components, which differ in how they are trained."""
for preset in PRESETS:
    ALIKE.setdefault(inference(preset), []).append(preset)


def sessions(folder: Path) -> dict[str, onnxruntime.InferenceSession]:
    return {file.stem: onnxruntime.InferenceSession(file) for file in sorted(folder.glob("*.onnx"))}


def run(session: onnxruntime.InferenceSession, **inputs: Any) -> Arrays:
    """All outputs by name, for those of the inputs that the file has."""
    given = {info.name: inputs[info.name] for info in session.get_inputs()}
    names = [info.name for info in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


def metadata(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}


def run_example(folder: Path, cwd: Path) -> Image.Image:
    """The picture that example.py draws, in a process in which torch and vaekit cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder / "example.py")]
    subprocess.run(command, cwd=cwd, check=True, timeout=240)
    with Image.open(cwd / "new-images.png") as image:
        return image.copy()


@pytest.mark.parametrize("presets", ALIKE.values(), ids=", ".join)
def test_every_preset_exports(presets: list[str], tmp_path: Path) -> None:
    preset = presets[0]
    settings: dict[str, Any] = TINY | {"preset": preset, "flow_matching": SECOND_STAGE}
    if "hidden" not in PRESETS[preset].settings.get("encoder", {}):
        settings |= {"encoder": {"channels": 8}, "decoder": {"channels": 8}}
    if preset != "best":
        settings |= {"latents": 4}
    model = vaekit.train(IMAGES, out=tmp_path / "run", **settings)
    folder = model.export("onnx", quiet=True)
    assert folder == model.run.folder / "exported/onnx-1"
    files = sessions(folder)
    assert list(files) == ["decoder", "encoder", "prior"]

    images, y = rings(7, SIZE, seed=9), np.arange(7) % CLASSES
    for n in (1, 2, 7):
        labels = y[:n] if model.model.classes else None
        encoded = run(files["encoder"], images=images[:n], labels=labels)
        z = model.encode(images[:n], labels)
        np.testing.assert_allclose(encoded["mean"], z, atol=1e-4, rtol=1e-4)
        assert ("log_variance" in encoded) == (Capability.MOMENTS in model.model.posterior.provides)
        if "log_variance" in encoded:
            np.testing.assert_allclose(
                encoded["log_variance"], log_variance(model, images[:n], labels), atol=1e-4
            )
        decoded = run(files["decoder"], latents=z, labels=labels)
        require_pixels(decoded, model.decode(z, labels))
    require_draws_of_the_prior(model, files["prior"])

    facts = metadata(files["decoder"])
    assert facts["weights_sha256"] == model.loaded.weights_hash and facts["classes"] == ["0", "1", "2"]
    assert facts["shape"] == [1, SIZE, SIZE] and facts["latent_shape"] == list(z.shape[1:])
    for session in files.values():
        for info in (*session.get_inputs(), *session.get_outputs()):
            assert info.shape[0] == "batch" and "batch" not in info.shape[1:]
            assert metadata(session)["inputs" if info in session.get_inputs() else "outputs"][info.name]
    if preset in ("best", "classic", "conditional"):
        assert run_example(folder, tmp_path).size == (8 * SIZE, 2 * SIZE)


def log_variance(model: TrainedModel, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    q = model.model.posterior_of(x, None if labels is None else torch.from_numpy(labels))
    log: np.ndarray = q.variance.log().unflatten(1, model.model.latent_shape).numpy()
    return log


def require_pixels(decoded: Arrays, expected: np.ndarray) -> None:
    """Rounding moves a pixel by one level, rarely; its location is as it was before rounding."""
    assert decoded["images"].dtype == np.uint8
    levels = np.abs(decoded["images"].astype(int) - expected)
    assert levels.max() <= 1 and levels.mean() < 0.01
    np.testing.assert_allclose(decoded["location"] * 255, expected, atol=0.5 + 255e-4)


def require_draws_of_the_prior(model: TrainedModel, session: onnxruntime.InferenceSession) -> None:
    """Noise becomes latents with the distribution of those that `sample` decodes."""
    count, rng = 600, np.random.default_rng(0)
    source = model.fitted_prior or model.model
    y = np.arange(count) % CLASSES
    noise = rng.standard_normal((count, *model.model.latent_shape), np.float32)
    drawn = run(session, noise=noise, choice=rng.random(count, np.float32), labels=y)["latents"]
    assert drawn.shape == noise.shape
    takes_labels = "labels" in [info.name for info in session.get_inputs()]
    labels = torch.from_numpy(y) if takes_labels else None
    expected = source.sample_prior(count, labels)
    require_same_mean(torch.from_numpy(drawn).flatten(1), expected)
    if not isinstance(source, FlowMatching):
        require_same_mean(
            *(source.log_prior(z, labels) for z in (torch.from_numpy(drawn).flatten(1), expected))
        )


def require_same_mean(a: Tensor, b: Tensor) -> None:
    """Within five standard errors."""
    error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= 5 * error + 1e-6).all()


def gaussians(*shape: int) -> DiagonalGaussian:
    return DiagonalGaussian(torch.randn(*shape), torch.randn(*shape))


def full(*shape: int) -> FullGaussian:
    return FullGaussian(torch.randn(*shape), torch.randn(*shape, shape[-1]).tril() + 2 * torch.eye(shape[-1]))


def distribution(kind: str) -> Distribution:
    y = torch.arange(4000) % 2
    if kind == "flow":
        scale = AffineTransform(torch.ones(3), torch.tensor([0.5, 2.0, 3.0]), event_dim=1)
        return Flow(ComposedTransform(scale), gaussians(3))
    return {
        "diagonal": gaussians(3),
        "full": full(3),
        "mixture": Mixture(torch.tensor([0.0, 1.0, 2.0]), gaussians(3, 3)),
        "mixture of full": Mixture(torch.tensor([0.0, 1.0, 2.0]), full(3, 3)),
        "of class": MixtureOfClass(torch.tensor([[0.0, 2.0], [1.0, -1.0]]), gaussians(2, 2, 3), y),
    }[kind]


@pytest.mark.parametrize("kind", ["diagonal", "full", "mixture", "mixture of full", "flow", "of class"])
def test_noise_becomes_draws_of_a_distribution(kind: str) -> None:
    p = distribution(kind)
    z = latents_of_noise(p, torch.randn(4000, 3), torch.rand(4000))
    expected = p.sample() if p.batch_shape else p.sample(torch.Size([4000]))
    require_same_mean(z, expected)
    require_same_mean(z.square(), expected.square())
    require_same_mean(p.log_prob(z), p.log_prob(expected))


def test_a_number_chooses_by_weight_and_never_what_has_none() -> None:
    weights = torch.tensor([[0.0, 1.0, 0.0, 2.0, 1.0, 0.0]])
    numbers = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-24, 1.0])
    assert choose(weights.expand(len(numbers), -1), numbers).tolist() == [1, 1, 3, 3, 4, 4, 4]
    assert choose(weights, None).tolist() == [1]


def test_conditions_and_their_second_stage(tmp_path: Path) -> None:
    photos = save_images(tmp_path / "photos", {f"{i}.png": image for i, image in enumerate(rings(40, SIZE))})
    rows = [f"{i}.png,{20 + i},{'ab'[i % 2]}" for i in range(40)]
    (photos / "table.csv").write_text("\n".join(["file,age,hair", *rows]) + "\n")
    settings = MLP | {"preset": "classic", "latent_prior": "flow_matching", "flow_matching": SECOND_STAGE}
    given = {"labels": "table.csv", "condition": "age,hair", "label_column": None}
    model = vaekit.train(photos, out=tmp_path / "run", **TINY | settings | given)
    assert isinstance(model.fitted_prior, FlowMatching)
    folder = model.export(quiet=True)
    files = sessions(folder)
    assert [info.name for info in files["prior"].get_inputs()] == ["noise", "conditions"]
    columns = metadata(files["encoder"])["conditions"]
    ages = np.array([30, 50, 70])
    vectors = np.float32([[(age - columns[0]["mean"]) / columns[0]["std"], 0, 1] for age in ages])
    assert [column["name"] for column in columns] == ["age", "hair"] and columns[1]["values"] == ["a", "b"]
    images = rings(3, SIZE, seed=4)
    conditions = [{"age": int(age), "hair": "b"} for age in ages]
    mean = run(files["encoder"], images=images, conditions=vectors)["mean"]
    np.testing.assert_allclose(mean, model.encode(images, conditions), atol=1e-4)
    decoded = run(files["decoder"], latents=mean, conditions=vectors)
    require_pixels(decoded, model.decode(mean, conditions))
    noise = torch.randn(3, 3)
    drawn = run(files["prior"], noise=noise.numpy(), conditions=vectors)["latents"]
    label = model.fitted_prior.label_of_conditions(torch.from_numpy(vectors))
    np.testing.assert_allclose(drawn, model.fitted_prior.solve(noise, label), atol=1e-4)
    assert run_example(folder, tmp_path).size == (8 * SIZE, 2 * SIZE)


DENSITIES: dict[str, dict[str, Any]] = {
    "diagonal": {"kind": "gaussians", "settings": {"components": 3, "full": False}},
    "full": {"kind": "gaussians", "settings": {"components": 3, "full": True}},
    "flow": {"kind": "splines", "settings": {}},
}


@pytest.mark.parametrize("density", DENSITIES)
def test_fitted_priors_of_classes(density: str, tmp_path: Path) -> None:
    """Of a model without labels, whose prior has them."""
    settings = TINY | MLP | {"preset": "classic", "callbacks": []}
    run = vaekit.train(IMAGES, out=tmp_path / "run", **settings)
    prior = FittedPrior({"name": density, "latents": 3, "classes": CLASSES, **DENSITIES[density]})
    for name, tensor in prior.state_dict().items():
        if tensor.is_floating_point() and name != "density.scale":
            tensor.add_(0.3 * torch.rand_like(tensor))
    prior.shares.div_(prior.shares.sum())
    write_prior(run.run, prior, {}, run.loaded.weights_hash)
    model = vaekit.load(tmp_path / "run")
    folder = model.export(quiet=True)
    files = sessions(folder)
    assert [info.name for info in files["decoder"].get_inputs()] == ["latents"]
    takes = {info.name for info in files["prior"].get_inputs()}
    assert takes == {"noise", "labels"} | ({"choice"} if density != "flow" else set())
    require_draws_of_the_prior(model, files["prior"])
    facts = metadata(files["prior"])
    assert facts["note"] == density
    np.testing.assert_allclose(facts["class_shares"], prior.shares, rtol=1e-5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A colour model without classes, of a folder."""
    folder = tmp_path_factory.mktemp("data")
    save_images(folder, {f"{i}.png": image for i, image in enumerate(rings(30, 12, 3))})
    return vaekit.train(
        folder, out=tmp_path_factory.mktemp("runs") / "run", **MLP | TINY | {"preset": "laplace"}
    )


def test_the_command_prints_sizes_and_differences(model: TrainedModel, tmp_path: Path) -> None:
    output = command("export", model.run.folder, "--to", "onnx", "--out", tmp_path / "new/model")
    assert f"Wrote {tmp_path / 'new/model'}" in output
    table = [line.split() for line in output.splitlines() if ".onnx" in line and " MB " in line]
    assert [line[0] for line in table] == ["encoder.onnx", "decoder.onnx", "prior.onnx"]
    assert all(0 <= float(line[3]) < 1e-4 for line in table)
    assert output.count("the model's own prior") == 1
    names = {file.name for file in (tmp_path / "new/model").iterdir()}
    assert names == {"encoder.onnx", "decoder.onnx", "prior.onnx", "README.md", "example.py"}
    readme = (tmp_path / "new/model/README.md").read_text()
    assert "| decoder.onnx | output `images` | uint8 [batch, 12, 12, 3] | pixels |" in readme
    script = (tmp_path / "new/model/example.py").read_text().splitlines()
    assert sum(bool(line) and "import" not in line and not line.startswith('"""') for line in script) <= 10
    assert run_example(tmp_path / "new/model", tmp_path).mode == "RGB"


def test_output_folders_are_checked_first(model: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_text("mine")
    run = model.run.folder
    assert "already exists. Choose another --out." in mistake("export", run, "--out", tmp_path / "there")
    source = json.loads(model.run.config.read_text())["source"]
    refused("inside the image folder", model.export, out=Path(source) / "onnx")
    assert "--to: must be" in mistake("export", run, "--to", "onyx")
    refused("`to`: must be onnx", model.export, "onyx")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert not (run / "exported").exists()


def test_a_missing_package_is_named(model: TrainedModel, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    (tmp_path / "onnxscript.py").write_text("raise ImportError(name='onnxscript')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    output = mistake("export", model.run.folder, "--out", tmp_path / "onnx", command=NEW_PROCESS)
    assert "needs onnxscript, which is not installed. Run `pip install 'vaekit[export]'`." in output
    assert not (tmp_path / "onnx").exists()


def test_a_killed_export_leaves_nothing_that_looks_finished(model: TrainedModel, tmp_path: Path) -> None:
    process = start("export", model.run.folder, "--out", tmp_path / "onnx")
    wait_for(lambda: any(tmp_path.glob(".onnx.*/encoder.onnx")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not any((tmp_path / "onnx").iterdir())
    model.export(out=tmp_path / "onnx", quiet=True)  # an empty folder may be filled
    assert (tmp_path / "onnx/prior.onnx").exists()


class Decoder(nn.Module):
    """A decoder of images 12x12, with what ONNX files cannot have."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(3, 144)

    def forward(self, z: Tensor) -> Tensor:
        out = self.layer(z).unflatten(1, (1, 12, 12))
        if self.kind == "random":
            return out + torch.randn_like(out)
        return out if z.sum() > 0 else -out


@pytest.mark.parametrize(
    ("kind", "message"),
    [("random", "decoder.onnx differs from torch by"), ("branching", "cannot be exported to ONNX: ")],
)
def test_networks_that_cannot_be_exported_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    settings = TINY | MLP | {"decoder": Decoder(kind), "preset": "classic", "callbacks": []}
    model = vaekit.train(rings(30, 12), out=tmp_path / "run", **settings)
    refused(message, model.export, out=tmp_path / "onnx", quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_model_that_is_too_large_for_a_file_is_refused(
    model: TrainedModel, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr("vaekit.export.onnx.MAX_BYTES", 1000)
    refused("The encoder has 0.0 GB, and an ONNX file no more than", model.export, out=tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_prior_that_cannot_be_exported_says_why(tmp_path: Path) -> None:
    prior = {"kind": "vamp", "components": 4}
    settings = TINY | MLP | {"preset": "classic", "posterior": "nsf", "prior": prior, "callbacks": []}
    model = vaekit.train(rings(30, 12), out=tmp_path / "run", **settings)
    refused("'vamp' of posteriors that are flows cannot be exported", model.export, quiet=True)
