"""A folder of web pages in which a trained model decodes images in the visitor's browser."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vaekit.data.sources.columns import average_vector
from vaekit.errors import UserError, setting
from vaekit.export.graphs import require_packages
from vaekit.export.onnx import write_files
from vaekit.export.parts import Part, parts_of
from vaekit.latents.sampling import seeded
from vaekit.plots.grids import picture
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.files import printable
from vaekit.utils.logging import status

PACKAGE = "onnxruntime-web@1.30.0"
"""The package and version with which the page is tested."""
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of its folder `dist` that the page loads: its build for CPUs."""
LICENCE = """onnxruntime-web, https://www.npmjs.com/package/onnxruntime-web
MIT License, copyright (c) Microsoft Corporation: https://github.com/microsoft/onnxruntime/blob/main/LICENSE
"""
STATIC = Path(__file__).with_name("static")
DRAWS, COLUMNS = 256, 16
"""New images on the map, and in a row of the picture of their thumbnails."""
THUMBNAIL = 64
"""Longer side of a thumbnail in pixels, at most."""
DIRECTIONS = 12
"""Sliders, at most."""
REACH = 2.0
"""Standard deviations by which latents are moved to measure their effect."""
CHUNK = 32
Labels = dict[str, Tensor]


def write_web(model: LoadedModel, folder: Path, runtime: str | Path | None) -> None:
    """Write the page, the model and the files of onnxruntime-web; see `TrainedModel.export`.

    Args:
        runtime: the folder of the unpacked package.

    Raises:
        UserError: it is not given, or lacks a file.
    """
    files = _runtime_files(runtime)
    require_packages()
    model = model.to("cpu")
    _, decoder, prior = parts_of(model)
    write_files(model, (decoder, prior), folder)
    with status("Decoding the map"):
        _write_latents(model, decoder, prior, folder)
    for file in STATIC.iterdir():
        shutil.copyfile(file, folder / file.name)
    (folder / "runtime").mkdir()
    for file in files:
        shutil.copyfile(file, folder / "runtime" / file.name)
    (folder / "runtime/LICENSE.txt").write_text(LICENCE, encoding="utf-8")


def _runtime_files(runtime: str | Path | None) -> list[Path]:
    archive = f"{PACKAGE.replace('@', '-')}.tgz"
    hint = f"Run `npm pack {PACKAGE} && tar xf {archive}`, and add {setting('runtime', 'package')}."
    if runtime is None:
        raise UserError("The page needs onnxruntime-web, which decodes images in a browser.", hint)
    files = [Path(runtime).expanduser() / "dist" / name for name in RUNTIME]
    for file in files:
        if not file.is_file():
            raise UserError(
                f"{runtime} is not the package onnxruntime-web: it has no dist/{file.name}.", hint
            )
    return files


@torch.no_grad()
def _write_latents(model: LoadedModel, decoder: Part, prior: Part, folder: Path) -> None:
    """Write what the page shows besides new images: model.json, latents.bin and map.png.

    The rows of latents.bin, float32 [rows, D], are the mean of draws of the prior, the directions of the
    sliders, the axes of the map and the draws.
    """
    labels = _labels(model, DRAWS)
    draws = _draw(prior, labels)
    images = _decode(decoder, draws, labels)
    z = draws.flatten(1).double().numpy()
    mean = z.mean(0)
    _, sizes, components = np.linalg.svd(z - mean, full_matrices=False)
    axes = np.zeros((2, z.shape[1]))
    axes[: len(components)] = components[:2]
    if len(model.vae.latent_shape) == 3:
        names = [str(number + 1) for number in range(min(DIRECTIONS, len(components)))]
        directions = (components * sizes[:, None] / np.sqrt(DRAWS - 1))[: len(names)]
    else:
        order = _by_effect(decoder, draws, labels)[:DIRECTIONS]
        names = [f"z{latent + 1}" for latent in order]
        directions = np.diag(z.std(0))[order]
    blocks = {"mean": mean[None], "directions": directions, "axes": axes, "draws": z}
    np.concatenate(list(blocks.values())).astype("<f4").tofile(folder / "latents.bin")
    ends = np.cumsum([len(block) for block in blocks.values()]).tolist()
    places = (z - mean) @ axes.T
    share = 100 * (sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-12)
    facts = {
        **_facts(model, decoder, prior),
        "rows": {
            name: {"first": end - len(block), "count": len(block)}
            for end, (name, block) in zip(ends, blocks.items(), strict=True)
        },
        "directions": names,
        "map": {
            "columns": COLUMNS,
            "places": places.round(4).tolist(),
            "labels": labels["labels"].tolist(),
            "extent": float(np.abs(places).max()) or 1.0,
            "share": round(share),
        },
    }
    (folder / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    _atlas(images).save(folder / "map.png")


def _facts(model: LoadedModel, decoder: Part, prior: Part) -> dict[str, Any]:
    """What the page says of the model, and needs to run it."""
    has_classes = "labels" in decoder.inputs | prior.inputs
    classes = [printable(name) for name in model.classes] if has_classes else []
    shares = [] if model.fitted_prior is None else model.fitted_prior.shares.tolist()
    if len(shares) != len(classes):
        shares = [1 / len(classes)] * len(classes) if classes else []
    return {
        "title": printable(model.run.folder.resolve().name),
        "weights_sha256": model.weights_hash,
        "shape": model.shape,
        "latentShape": model.vae.latent_shape,
        "size": model.vae.latents,
        "classes": classes,
        "shares": shares,
        "condition": average_vector(model.columns).tolist() if model.columns else [],
    }


def _labels(model: LoadedModel, count: int) -> Labels:
    """Classes in turn, and conditions at their average."""
    labels = {"labels": torch.arange(count) % max(1, len(model.classes))}
    if model.columns:
        labels["conditions"] = torch.from_numpy(average_vector(model.columns)).expand(count, -1)
    return labels


def _draw(prior: Part, labels: Labels) -> Tensor:
    count = len(labels["labels"])
    with seeded(0, "web"):
        noise = torch.randn(count, *prior.inputs["noise"].shape[1:])
        inputs = {"noise": noise, "choice": torch.rand(count), **labels}
    return _outputs(prior, inputs)


def _decode(decoder: Part, latents: Tensor, labels: Labels) -> NDArray[np.uint8]:
    return _outputs(decoder, {"latents": latents, **labels}).numpy()


def _outputs(part: Part, inputs: dict[str, Tensor]) -> Tensor:
    """The first output for all rows, computed in chunks."""
    names = list(part.inputs)
    chunks = zip(*(inputs[name].split(CHUNK) for name in names), strict=True)
    return torch.cat([part.module(**dict(zip(names, chunk, strict=True)))[0] for chunk in chunks])


def _by_effect(decoder: Part, draws: Tensor, labels: Labels) -> Sequence[int]:
    """Latents, those first that change the image most when they move from `REACH` standard deviations below
    their mean to as many above."""
    mean, steps = draws.mean(0), torch.diag(REACH * draws.std(0))
    count = len(mean)
    first = {name: tensor[:1].expand(count, *tensor.shape[1:]) for name, tensor in labels.items()}
    low, high = (_decode(decoder, z, first).astype(np.int32) for z in (mean - steps, mean + steps))
    order: list[int] = np.abs(high - low).reshape(count, -1).sum(1).argsort(kind="stable")[::-1].tolist()
    return order


def _atlas(images: NDArray[np.uint8]) -> Image.Image:
    """Thumbnails of all images, row by row without gaps."""
    pictures = [picture(image) for image in images]
    for thumbnail in pictures:
        thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    width, height = pictures[0].size
    sheet = Image.new(pictures[0].mode, (COLUMNS * width, -(-len(pictures) // COLUMNS) * height))
    for index, thumbnail in enumerate(pictures):
        sheet.paste(thumbnail, (index % COLUMNS * width, index // COLUMNS * height))
    return sheet
