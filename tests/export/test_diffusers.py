"""Autoencoders to diffusers' AutoencoderKL and back, compared with the library itself."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import vaekit
from command import mistake, refused, rings
from command import vaekit as command
from vaekit.errors import UserError
from vaekit.export.diffusers import export_diffusers, latent_moments
from vaekit.trained_model import TrainedModel

HELD_OUT = 6
IMAGES = np.concatenate([rings(54, 16, 3), 255 - rings(HELD_OUT, 16, 3, seed=1)])
"""The held-out ones are unlike the others."""
NETWORK = {"channels": 16, "groups": 4}
SMALL: dict[str, Any] = {
    "preset": "autoencoder-kl",
    "encoder": NETWORK,
    "decoder": NETWORK,
    "latents": "3x4x4",
    "latent_prior": "density",
    "batch_size": 16,
    "validation": f"last:{HELD_OUT}",
    "threads": 1,
    "quiet": True,
    "report": False,
    "callbacks": [],
}
STILL = {"epochs": 1, "learning_rate": 1e-30, "threads": 1, "quiet": True, "report": False, "callbacks": []}
"""Settings under which the weights stay what they start from."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "rings.npy"
    np.save(file, IMAGES)
    return file


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return vaekit.train(data, out=tmp_path_factory.mktemp("runs") / "run", epochs=3, **SMALL)


@pytest.fixture(scope="module")
def exported(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `vaekit export` wrote."""
    folder = tmp_path_factory.mktemp("exported") / "new"
    output = command("export", model.run.folder, "--to", "diffusers", "--out", folder)
    assert output.splitlines()[-1] == f"Wrote {folder}"
    assert {file.name for file in folder.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    return folder


def assert_same(model: TrainedModel, theirs: Any, size: int = 16) -> None:
    """Means, log-variances and decoded images agree to 1e-4, for images from 0 to 1 and from -1 to 1."""
    x = torch.from_numpy(rings(5, size, 3, seed=9)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        q = model.model.posterior_of(x)
        q_theirs = theirs.encode(2 * x - 1).latent_dist
        z = q.mean + 0.3 * torch.randn_like(q.mean)
        image = model.model.decode(z).mean
        image_theirs = theirs.decode(z.unflatten(1, q_theirs.mean.shape[1:])).sample / 2 + 0.5
    close = {"rtol": 0, "atol": 1e-4}
    torch.testing.assert_close(q.mean, q_theirs.mean.flatten(1), **close)
    torch.testing.assert_close(q.variance.log(), q_theirs.logvar.flatten(1), **close)
    torch.testing.assert_close(image, image_theirs, **close)
    assert min(q.mean.std(), q.variance.log().std(), image.std()) > 1e-3  # or this proves nothing


def test_diffusers_loads_the_folder_and_computes_the_same(model: TrainedModel, exported: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs, report = diffusers.AutoencoderKL.from_pretrained(exported, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_same(model, theirs.eval())


def test_scaling_follows_from_draws_of_the_latents(model: TrainedModel, exported: Path) -> None:
    record = json.loads((exported / "config.json").read_text())
    expected = closed_form(model, IMAGES[:-HELD_OUT])
    values = (len(IMAGES) - HELD_OUT) * 16  # of each channel, one draw each
    error = 4 * expected["std"] / math.sqrt(values)
    for name in ("mean", "std"):
        np.testing.assert_array_less(abs(record[f"latents_{name}"] - expected[name]), error)
    assert record["scaling_factor"] == pytest.approx(1 / expected["overall"], rel=4 / math.sqrt(values))


def test_moments_are_over_the_training_split_alone(model: TrainedModel) -> None:
    """With next to no noise they are those of the means."""
    copy = vaekit.load(model.run.folder)
    head = copy.model.posterior.head
    head.weight[3:], head.bias[3:] = 0, -30
    mean, deviation, overall = latent_moments(copy.loaded, quiet=True)
    training, everything = (closed_form(copy, part) for part in (IMAGES[:-HELD_OUT], IMAGES))
    np.testing.assert_allclose(mean, training["mean"], rtol=1e-4)
    np.testing.assert_allclose(deviation, training["std"], rtol=1e-3)
    assert overall == pytest.approx(training["overall"], rel=1e-3)
    assert not np.allclose(deviation, everything["std"], rtol=1e-2)  # or this proves nothing


def closed_form(model: TrainedModel, images: np.ndarray) -> dict[str, Any]:
    """Mean and deviation of z over q(z | x) of images, by channel, and the deviation of all."""
    q = model.model.posterior_of(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    mean, second = (
        moment.unflatten(1, (3, 16)).mean((0, 2)) for moment in (q.mean, q.mean.square() + q.variance)
    )
    overall = (second.mean() - mean.mean().square()).sqrt()
    return {"mean": mean.numpy(), "std": (second - mean.square()).sqrt().numpy(), "overall": overall.item()}


def test_a_folder_of_diffusers_is_trained_on(data: Path, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(3)
    theirs = diffusers.AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=2,
        layers_per_block=2,
        norm_num_groups=8,
        sample_size=64,
    ).eval()
    folder = tmp_path / "theirs"
    theirs.save_pretrained(folder)
    model = vaekit.train(data, out=tmp_path / "run", from_run=folder, latent_prior="density", **STILL)
    assert model.config.latents == "2x4x4"
    assert "Not taken: likelihood.log_sigma (not in the run)." in model.run.log.read_text()
    assert_same(model, theirs)
    message = mistake("train", "--from", folder, "--out", tmp_path / "none")
    assert message.endswith("names no training images. Give the images to train on.")


def test_there_and_back_the_weights_are_the_same(
    model: TrainedModel, exported: Path, data: Path, tmp_path: Path
) -> None:
    back = vaekit.train(data, out=tmp_path / "run", from_run=exported, latent_prior="density", **STILL)
    old, new = (load_file(each.run.weights) for each in (model, back))
    assert all(torch.equal(old[name], new[name]) for name in old if not name.startswith("likelihood"))
    with pytest.raises(UserError, match=r"encoder \(autoencoder_kl, not dcae\)"):
        kinds = {"encoder": {"kind": "dcae"}, "decoder": {"kind": "dcae"}}
        vaekit.train(data, out=tmp_path / "other", from_run=exported, **kinds, **STILL)


def test_former_names_and_missing_layers_are_read(
    model: TrainedModel, exported: Path, data: Path, tmp_path: Path
) -> None:
    """Older folders have other names for attention, as 1x1 convolutions; later ones lack quant_conv."""
    folder = tmp_path / "former"
    shutil.copytree(exported, folder)
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name in [name for name in weights if "attentions" in name]:
        tensor = weights.pop(name)
        for now, before in former.items():
            name = name.replace(now, before)
        weights[name] = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
    for name in [name for name in weights if "quant_conv" in name]:
        del weights[name]
    half = {name: tensor.half() for name, tensor in weights.items()}
    save_file(half, folder / "diffusion_pytorch_model.safetensors")
    read = vaekit.train(data, out=tmp_path / "run", from_run=folder, latent_prior="density", **STILL)
    old, new = (load_file(each.run.weights) for each in (model, read))
    names = [name for name in old if name.startswith(("encoder.", "decoder.")) and "quant" not in name]
    assert any("to_out.0" in name for name in names)
    close = {"rtol": 0, "atol": 1e-20}  # zeros take steps of 1e-30
    for name in names:
        torch.testing.assert_close(new[name], old[name].half().float(), **close)
    torch.testing.assert_close(new["posterior.head.weight"][:, :, 0, 0], torch.eye(6), **close)
    torch.testing.assert_close(new["decoder.post_quant_conv.bias"], torch.zeros(3), **close)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "class AutoencoderTiny, not AutoencoderKL"),
        ({"block_out_channels": [16, 16, 16]}, r"block_out_channels is \[16, 16, 16\], not \[16, 32, 64\]"),
        ({"block_out_channels": []}, "IndexError"),
        ({"block_out_channels": [10**9]}, "down_block_types"),
        ({"layers_per_block": 10**9}, "encoder"),
        ({"down_block_types": ["AttnDownBlock2D"] * 3}, "down_block_types"),
        ({"norm_num_groups": 5}, "5 groups do not divide 16 channels"),
        ({"latent_channels": "__import__"}, "latents"),
        ({"in_channels": None}, "out_channels is 3, not None"),
    ],
)
def test_other_structures_are_refused(
    exported: Path, data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(exported, folder)
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | changes))
    refused(message, vaekit.train, data, out=tmp_path / "run", from_run=folder, **STILL)
    assert not (tmp_path / "run").exists()


def test_pickled_weights_are_not_read(exported: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "pickled")
    weights = tmp_path / "pickled" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refused(
        "has no diffusion_pytorch_model.safetensors. Save it with `save_pretrained`",
        vaekit.train,
        data,
        out=tmp_path / "run",
        from_run=tmp_path / "pickled",
        **STILL,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "best"}, "no counterpart of the encoder 'dcae'. .*autoencoder-kl"),
        ({"posterior": "gaussian"}, "posterior 'gaussian'. .*clipped_gaussian"),
        ({"latents": 8}, "no latent vectors"),
        ({"likelihood": {"levels": "256"}}, "no sigmoid after the decoder.*'levels': 'none'"),
        ({"likelihood": {"sigma": "pixel"}}, "no noise level for every pixel"),
        ({"likelihood": "bernoulli"}, "likelihood 'bernoulli'"),
        ({"decoder": {**NETWORK, "blocks": 2}}, r"one width and depth.*decoder=\{'blocks': 1\}"),
    ],
)
def test_models_without_a_counterpart_are_refused(
    data: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    given = SMALL | settings
    if settings.get("preset") == "best":
        given |= {"encoder": {"channels": 8}, "decoder": {"channels": 8}}
    model = vaekit.train(data, out=tmp_path / "run", epochs=1, **given)
    sentence = f"This model cannot be exported: AutoencoderKL has .*{message}"
    refused(sentence, export_diffusers, model.loaded, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_sizes_that_cannot_be_halved_are_padded(tmp_path: Path) -> None:
    """The padded image is that of diffusers; the decoded one is cut to the size."""
    model = vaekit.train(rings(30, 13, 3), out=tmp_path / "run", epochs=1, **SMALL)
    assert model.reconstruct(rings(2, 13, 3)).shape == (2, 13, 13, 3)
