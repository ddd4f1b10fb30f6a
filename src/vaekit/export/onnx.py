"""A trained model as ONNX files, each compared with torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vaekit.errors import UserError
from vaekit.export.describe import example_script, metadata, readme
from vaekit.export.graphs import graph_of, require_packages
from vaekit.export.parts import ROWS, Part, parts_of
from vaekit.runs.loaded import LoadedModel
from vaekit.utils.logging import log, status
from vaekit.version import VERSION

MAX_DIFFERENCE = 1e-4
"""Largest difference between the outputs of onnxruntime and torch; see `compare`."""
MAX_BYTES = 2**31 - 1
"""Of an ONNX file."""
BATCHES = (1, 2, ROWS)
"""Sizes of the batches that are compared."""


def write_onnx(model: LoadedModel, folder: Path) -> None:
    """Write encoder.onnx, decoder.onnx, prior.onnx, README.md and example.py; see `TrainedModel.export`."""
    require_packages()
    model = model.to("cpu")
    parts = parts_of(model)
    write_files(model, parts, folder)
    (folder / "README.md").write_text(readme(model, parts), encoding="utf-8")
    (folder / "example.py").write_text(example_script(model, parts), encoding="utf-8")


@torch.no_grad()
def write_files(model: LoadedModel, parts: Sequence[Part], folder: Path) -> None:
    """Write the ONNX files of parts, and log their sizes and differences from torch.

    Raises:
        UserError: a custom network cannot be exported, or a file computes something else than torch.
    """
    lines = ["File              Size  Largest difference from torch"]
    for part in parts:
        file = folder / f"{part.name}.onnx"
        with status(f"Exporting {file.name}"):
            write_part(model, part, file)
            difference = compare(part, file)
        note = f"  ({part.note})" if part.note else ""
        lines.append(f"{file.name:<13}{file.stat().st_size / 1e6:6.1f} MB  {difference:.1e}{note}")
        if not difference <= MAX_DIFFERENCE:
            message = f"{file.name} differs from torch by {difference:.1e}, more than {MAX_DIFFERENCE:g}"
            raise UserError(f"{message}: nothing was written.", "A custom network may be random.")
    log.info("\n".join(lines))


def write_part(model: LoadedModel, part: Part, file: Path) -> None:
    """Write the ONNX file of a part, with metadata."""
    import onnx

    proto = graph_of(part)
    if (size := proto.ByteSize()) > MAX_BYTES:
        raise UserError(f"The {part.name} has {size / 1e9:.1f} GB, and an ONNX file no more than 2 GB.")
    onnx.helper.set_model_props(proto, metadata(model, part))
    proto.producer_name, proto.producer_version = "vaekit", VERSION
    onnx.checker.check_model(proto)
    onnx.save_model(proto, file)


def compare(part: Part, file: Path) -> float:
    """The largest difference between the outputs of a file in onnxruntime and of torch.

    Differences of numbers above 1 are relative. Pixels may differ by the one level by which rounding can
    move them; what is rounded is compared too, as `location`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences = []
    for rows in BATCHES:
        inputs = {name: tensor[:rows].numpy() for name, tensor in part.inputs.items()}
        for got, expected in zip(session.run(part.outputs, inputs), part(rows).values(), strict=True):
            values = expected.double().numpy()
            error = np.abs(got.astype(np.float64) - values)
            if expected.dtype == torch.uint8:
                error = (error - 1).clip(0) / 255
            differences.append((error / np.maximum(1, np.abs(values))).max())
    return float(np.max(differences))  # NaN if there is one
