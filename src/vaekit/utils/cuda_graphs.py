"""CUDA graphs: the work of a function on an NVIDIA GPU, captured once and launched by one call."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vaekit.utils.logging import log

Result = TypeVar("Result")


class CudaGraph(Generic[Result]):
    """A function of tensors that is replayed as a CUDA graph after a few ordinary calls.

    A GPU finishes the kernels of small networks faster than Python launches them; a graph launches all at
    once. The function must do the same whatever the values of its tensors, and never wait for the device.
    What it returns, and the gradients it leaves, are in the same memory every time. Noise continues from the
    state of the device's generator, as in an ordinary call. If the work cannot be captured, for inputs of
    another shape, and on other devices, calls are ordinary ones.
    """

    WARMUP_CALLS = 3
    """Calls before the capture, in which libraries choose algorithms and allocate memory."""

    def __init__(self, function: Callable[..., Result]) -> None:
        self.function, self.calls, self.graph_safe = function, 0, True
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream: torch.cuda.Stream
        self.shapes: list[torch.Size]
        self.inputs: tuple[Tensor, ...]
        self.outputs: Result

    def __call__(self, *inputs: Tensor) -> Result:
        device = inputs[0].device
        if device.type != "cuda" or not self.graph_safe:
            return self.function(*inputs)
        if self.calls == 0:
            self.stream, self.shapes = torch.cuda.Stream(device), [x.shape for x in inputs]
        if [x.shape for x in inputs] != self.shapes:
            return self.function(*inputs)
        self.calls += 1
        if self.graph is None and (self.calls <= self.WARMUP_CALLS or not self._capture(inputs)):
            return self._warmup_call(inputs)
        for static, new in zip(self.inputs, inputs, strict=True):
            static.copy_(new)
        assert self.graph is not None
        self.graph.replay()
        return self.outputs

    def _warmup_call(self, inputs: tuple[Tensor, ...]) -> Result:
        """An ordinary call on the stream that will be captured."""
        device = inputs[0].device
        current = torch.cuda.current_stream(device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = self.function(*inputs)
        current.wait_stream(self.stream)
        return result

    def _capture(self, inputs: tuple[Tensor, ...]) -> bool:
        """Capture the work on copies of the inputs, without doing it; whether that was possible."""
        device = inputs[0].device
        generator = torch.cuda.default_generators[device.index or 0]
        noise, current = generator.clone_state(), torch.cuda.current_stream(device)
        self.inputs = tuple(x.clone() for x in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.outputs = self.function(*self.inputs)
        except RuntimeError as error:
            self.graph_safe = False
            log.info(f"The training step cannot be captured as a CUDA graph: {str(error).splitlines()[0]}")
        if self.graph_safe:
            self.graph = graph
        else:  # a failed capture leaves its stream, noise and memory behind
            torch.cuda.set_stream(current)
            generator.graphsafe_set_state(noise)
            del graph
            torch.cuda.empty_cache()
        return self.graph_safe


def is_capturing(device: torch.device) -> bool:
    """Whether work for the device is being captured rather than done."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
