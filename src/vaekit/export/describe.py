"""What stands in and next to the ONNX files of a model: metadata, README.md, and a script that uses them."""

import json
from collections.abc import Sequence

from torch import Tensor

from vaekit.export.parts import Part
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.files import printable
from vaekit.version import VERSION

TEXTS = {
    "images": "pixels",
    "mean": "posterior mean of the latents",
    "log_variance": "posterior log-variance of every latent",
    "latents": "latents",
    "location": "the same pixels from 0 to 1, before rounding",
    "noise": "draws of a standard normal; times 0.8, say, for images that are more typical and less varied",
    "choice": "uniform numbers from 0 to 1, which choose a component of the prior",
    "labels": "number of the class, from 0",
    "conditions": "the columns of the metadata `conditions`, one after the other",
}
"""Meaning of every input and output."""
TYPES = {"torch.uint8": "uint8", "torch.int64": "int64", "torch.float32": "float32"}
EXAMPLE = '''"""New images, and below them their reconstructions, with onnxruntime, NumPy and Pillow alone."""

{imports}from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

load, rng, n = onnxruntime.InferenceSession, np.random.default_rng(0), 8
folder = Path(__file__).parent
encoder, decoder, prior = (load(folder / f"{{name}}.onnx") for name in ("encoder", "decoder", "prior"))
{label}noise = rng.standard_normal({noise}, np.float32)
[latents] = prior.run(["latents"], {{{prior}}})
[images] = decoder.run(["images"], {{{decoder}}})
[mean] = encoder.run(["mean"], {{{encoder}}})
[decoded] = decoder.run(["images"], {{{again}}})
Image.fromarray(np.vstack([np.hstack(images), np.hstack(decoded)]){gray}).save("new-images.png")
'''
README = """# {title}

Written by vaekit {version}, for onnxruntime and other programs that read ONNX. A batch may have any size.
Pixels are uint8, from 0 to 255. `example.py` uses the files.

| file | | type and shape | |
|---|---|---|---|
{rows}

Metadata of every file (`session.get_modelmeta().custom_metadata_map`), as JSON:

{metadata}
"""
METADATA = {
    "vaekit": "version that wrote the file",
    "part": "encoder, decoder or prior",
    "note": "what the prior is",
    "weights_sha256": "SHA-256 of the run's model.safetensors",
    "shape": "channels, height and width of the images",
    "latent_shape": "shape of the latents of one image",
    "classes": "names of the classes, by number",
    "class_shares": "shares of the classes in the training images, for draws of `labels`",
    "conditions": "how the columns of a table become numbers: a number is (value - mean) / std, yes or no is "
    "1 or 0, a category or list is 1 at the places of its values; `average` is that of the training images",
    "inputs": "meaning of every input",
    "outputs": "meaning of every output",
}
"""Meaning of all metadata."""


def metadata(model: LoadedModel, part: Part) -> dict[str, str]:
    """The metadata of a file, each as JSON; those that do not apply are left out."""
    fitted = model.fitted_prior
    shares = fitted.shares.tolist() if fitted is not None else []
    values = {
        "vaekit": VERSION,
        "part": part.name,
        "note": part.note,
        "weights_sha256": model.weights_hash,
        "shape": model.shape,
        "latent_shape": model.vae.latent_shape,
        "classes": [printable(name) for name in model.classes],
        "class_shares": shares if len(shares) > 1 else [],
        "conditions": [column.model_dump() for column in model.columns],
        "inputs": {name: TEXTS[name] for name in part.inputs},
        "outputs": {name: TEXTS[name] for name in part.outputs},
    }
    return {name: json.dumps(value) for name, value in values.items() if value}


def readme(model: LoadedModel, parts: Sequence[Part]) -> str:
    """README.md: the inputs and outputs of all files."""
    rows, names = [], dict[str, None]()
    for part in parts:
        names |= dict.fromkeys(metadata(model, part))
        tensors = part.inputs | part(1)
        for name, tensor in tensors.items():
            way = "input" if name in part.inputs else "output"
            rows.append(f"| {part.name}.onnx | {way} `{name}` | {_type(tensor)} | {TEXTS[name]} |")
    listed = "\n".join(f"- `{name}`: {METADATA[name]}" for name in names)
    title = printable(model.run.folder.resolve().name)
    return README.format(title=title, version=VERSION, rows="\n".join(rows), metadata=listed)


def _type(tensor: Tensor) -> str:
    return f"{TYPES[str(tensor.dtype)]} [{', '.join(['batch', *map(str, tensor.shape[1:])])}]"


def example_script(model: LoadedModel, parts: Sequence[Part]) -> str:
    """example.py: the calls of all files, with the inputs that this model has."""
    encoder, decoder, prior = parts
    values = {"choice": "rng.random(n, np.float32)"}

    def inputs(part: Part, **others: str) -> str:
        return ", ".join(f'"{name}": {(values | others).get(name, name)}' for name in part.inputs)

    label, imports = "", ""
    if "conditions" in decoder.inputs:
        imports = "import json\n"
        label = 'columns = json.loads(decoder.get_modelmeta().custom_metadata_map["conditions"])\n'
        label += 'conditions = np.float32([sum((column["average"] for column in columns), [])] * n)\n'
    elif "labels" in decoder.inputs | prior.inputs:
        label = f"labels = np.arange(n) % {len(model.classes)}  # all classes in turn\n"
    return EXAMPLE.format(
        imports=imports,
        label=label,
        noise=f"(n, {', '.join(map(str, model.vae.latent_shape))})",
        prior=inputs(prior),
        decoder=inputs(decoder),
        encoder=inputs(encoder),
        again=inputs(decoder, latents="mean"),
        gray="" if model.shape[0] in (3, 4) else "[..., 0]",
    )
