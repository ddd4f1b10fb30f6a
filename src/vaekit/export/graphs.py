"""ONNX graphs of the parts of a model."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaekit.errors import UserError
from vaekit.export.parts import FlowMatchingPart, Part, VelocityPart

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

BATCH = "batch"
"""Name of the first axis of every input and output, which may have any size."""
EXAMPLE_ROWS = 2
"""Rows with which a module is traced: torch takes an axis of one for an axis that always is one."""


def require_packages() -> None:
    """Raise UserError if a package of the extra `export` is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        message = f"Exporting to ONNX needs {error.name}, which is not installed."
        raise UserError(message, "Run `pip install 'vaekit[export]'`.") from None


def graph_of(part: Part) -> "ModelProto":
    """The ONNX model of a part, with all weights in it."""
    if isinstance(part.module, FlowMatchingPart):
        return _sampler(part, part.module)
    return _traced(part.module, part.inputs, part.outputs)


def _traced(module: nn.Module, inputs: dict[str, Tensor], outputs: tuple[str, ...]) -> "ModelProto":
    """Trace a module whose arguments have the names of the inputs; a number has no first axis."""
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                kwargs={name: x[:EXAMPLE_ROWS] if x.ndim else x for name, x in inputs.items()},
                dynamic_shapes={name: {0: BATCH} if x.ndim else {} for name, x in inputs.items()},
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise UserError(f"The model cannot be exported to ONNX: {reason}") from error
    assert program is not None
    graph = program.model.graph
    for value in (value for inner in graph for value in inner.outputs):
        value.name = f"inner.{value.name}"  # torch names some values like our outputs
    for value, name in zip(graph.outputs, outputs, strict=True):
        value.name = name
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what torch says of packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _sampler(part: Part, module: FlowMatchingPart) -> "ModelProto":
    """`FlowMatching.solve` as a loop over one network; unrolled it would be a graph of dozens of them."""
    from onnx import TensorProto, helper, numpy_helper

    model, example = module.model, part.inputs["noise"]
    others = {name: x for name, x in part.inputs.items() if name != "noise"}
    network = _traced(
        VelocityPart(module), {"position": example, "time": torch.zeros(()), **others}, ("velocity",)
    )
    tables = _turns(model.steps)
    constants = tables | {
        "turns": np.array(len(tables["times"])),
        "always": np.array(True),
        "loc": model.loc.reshape(module.shape).numpy(),
        "scale": model.scale.reshape(module.shape).numpy(),
    }

    def node(operator: str, inputs: str, outputs: str, **attributes: "GraphProto") -> "NodeProto":
        return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)

    def latents(*names: str) -> list["ValueInfoProto"]:
        shape: list[int | str | None] = [BATCH, *module.shape]
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]

    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    proceed, proceeding = (
        helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("proceed", "proceeding")
    )
    body = helper.make_graph(
        [
            node("Gather", "times turn", "time"),
            node("Gather", "now_weights turn", "now_weight"),
            node("Gather", "earlier_weights turn", "earlier_weight"),
            node("Gather", "replacements turn", "replaces"),
            *network.graph.node,
            node("Mul", "velocity now_weight", "now_part"),
            node("Mul", "earlier earlier_weight", "earlier_part"),
            node("Add", "now_part earlier_part", "change"),
            node("Add", "position change", "next_position"),
            node("Where", "replaces velocity earlier", "next_earlier"),
            node("Identity", "proceed", "proceeding"),
        ],
        "turn",
        [turn, proceed, *latents("position", "earlier")],
        [proceeding, *latents("next_position", "next_earlier")],
    )
    given = [info for info in network.graph.input if info.name in others]
    graph = helper.make_graph(
        [
            node("Loop", "turns always noise noise", "end last_velocity", body=body),
            node("Mul", "end scale", "scaled"),
            node("Add", "scaled loc", "latents"),
        ],
        part.name,
        [*latents("noise"), *given],
        latents("latents"),
        [*network.graph.initializer, *(numpy_helper.from_array(a, name) for name, a in constants.items())],
    )
    return helper.make_model(graph, opset_imports=network.opset_import, ir_version=network.ir_version)


def _turns(steps: int) -> dict[str, NDArray[np.generic]]:
    """The turns of the loop: at which time the velocity v is taken; how much of it, and how much of the
    earlier one e, is added to the position; and whether v replaces e.

    Heun's step from x takes two turns: the first goes to x + h v(x, 0), and from there the second, with v and
    e at both ends, adds h (v - e) / 2. The others are steps of the Adams-Bashforth method, the first of them
    from v(x, 0) too.
    """
    step, times = 1 / steps, np.linspace(0, 1, steps + 1)
    now = [1.0, 0.5, *[1.5] * (steps - 1)]
    earlier = [0.0, -0.5, *[-0.5] * (steps - 1)]
    return {
        "times": np.array([times[0], times[1], *times[1:-1]], np.float32),
        "now_weights": np.array(now, np.float32) * np.float32(step),
        "earlier_weights": np.array(earlier, np.float32) * np.float32(step),
        "replacements": np.array([turn != 1 for turn in range(steps + 1)]),
    }
