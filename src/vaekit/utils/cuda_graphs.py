"""The same work again and again on an NVIDIA GPU: recorded once, then begun by one call instead of hundreds."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vaekit.utils.logging import log

Result = TypeVar("Result")


class CudaGraph(Generic[Result]):
    """A function of tensors on a GPU whose work is replayed as a CUDA graph after a few ordinary calls.

    Small networks are done with a kernel sooner than Python has begun the next; a graph begins all of them at once.
    The function must do the same whatever the values of its tensors, and never wait for the device. What it returns,
    and the gradients it leaves, lie in the same memory every time. Noise goes on from where the device's generator
    stands, as in an ordinary call. Where the work cannot be recorded, and for inputs of another shape, calls stay
    ordinary; on other devices all are.
    """

    WARMUP_CALLS = 3
    """Calls before recording, in which libraries choose their ways and take their memory."""

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
        for kept, new in zip(self.inputs, inputs, strict=True):
            kept.copy_(new)
        assert self.graph is not None
        self.graph.replay()
        return self.outputs

    def _warmup_call(self, inputs: tuple[Tensor, ...]) -> Result:
        """An ordinary call on the stream that will be recorded."""
        device = inputs[0].device
        usual = torch.cuda.current_stream(device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream):
            result = self.function(*inputs)
        usual.wait_stream(self.stream)
        return result

    def _capture(self, inputs: tuple[Tensor, ...]) -> bool:
        """Record the work on copies of the inputs; nothing of it is done by that."""
        device = inputs[0].device
        generator = torch.cuda.default_generators[device.index or 0]
        noise = generator.clone_state()
        usual = torch.cuda.current_stream(device)
        self.inputs = tuple(x.clone() for x in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.outputs = self.function(*self.inputs)
        except RuntimeError as error:
            self.graph_safe = False
            log.info(f"Not recorded as a CUDA graph: {str(error).splitlines()[0]}")
        if self.graph_safe:
            self.graph = graph
        else:  # a recording that breaks off leaves its stream, its noise and its memory behind
            torch.cuda.set_stream(usual)
            generator.graphsafe_set_state(noise)
            del graph
            torch.cuda.empty_cache()
        return self.graph_safe


def is_capturing(device: torch.device) -> bool:
    """Whether work for the device is being recorded rather than done."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
