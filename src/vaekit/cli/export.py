"""The model in other formats: `export`."""

from pathlib import Path
from typing import Literal

from vaekit.cli.common import load_model, say
from vaekit.cli.flags import Out, RunFolder


def export(
    run: RunFolder,
    /,
    *,
    to: Literal["onnx", "web", "diffusers"] = "onnx",
    out: Out = None,
    runtime: Path | None = None,
) -> None:
    """Export the model, for use without vaekit and PyTorch.

    Args:
        to: Format. onnx: encoder, decoder and prior as ONNX files. web: a page that decodes images in the
            browser, for any web server. diffusers: a folder that AutoencoderKL.from_pretrained reads.
        runtime: For web: the unpacked npm package onnxruntime-web.
    """
    say(f"Wrote {load_model(run).export(to, out, runtime=runtime)}")
