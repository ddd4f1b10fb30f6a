"""Devices, their arithmetic and their memory."""

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from vaekit.errors import UserError, setting

M_TRIM_THRESHOLD = -1
"""As M_MMAP_THRESHOLD a parameter of mallopt(3), from glibc's malloc.h."""
M_MMAP_THRESHOLD = -3
DEFAULT_TRIM = 64 << 20
"""Bytes of freed memory at the top of the heap that glibc keeps, at most, by default."""
NEVER_TRIM = 2**31 - 1
"""All of them."""
LARGEST_HEAP_BLOCK = 32 << 20
"""The largest block, in bytes, that glibc lets come from the heap."""
RANDOM_NUMBERS = threading.RLock()
"""Held while random numbers are drawn after a seed: all threads share torch's generators."""


def is_available(device: torch.device) -> bool:
    """Whether this machine has the device."""
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def best_device() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return next(device for device in map(torch.device, ("cuda", "mps", "cpu")) if is_available(device))


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of a name: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        UserError: this machine has no such device.
    """
    if device == "auto":
        return best_device()
    try:
        resolved = torch.device(device)
    except RuntimeError:
        hint = "Use auto, cpu, cuda, cuda:1 or mps."
        raise UserError(f"{device!r} is not a device.", hint, "device") from None
    if not is_available(resolved):
        hint = f"Use {setting('device', 'auto')}."
        raise UserError(f"{resolved} is not available on this machine.", hint, "device")
    return resolved


def fast_bf16(device: torch.device) -> bool:
    """Whether the device has matrix units for bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def fast_tf32(device: torch.device) -> bool:
    """Whether the device has matrix units for TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def hardware_name(device: torch.device) -> str:
    """The name of a GPU, or the instruction set of a CPU, on which the last bits of results depend."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        amx = " with AMX" if fast_bf16(device) else ""
        return torch.backends.cpu.get_cpu_capability() + amx
    return device.type


@contextmanager
def matmul_precision(tf32: bool = False) -> Iterator[None]:
    """On NVIDIA GPUs, allow or forbid TF32 (torch allows it for convolutions), and be deterministic."""
    dense, layers = torch.backends.cuda.matmul, torch.backends.cudnn
    before = dense.allow_tf32, layers.allow_tf32, layers.deterministic
    dense.allow_tf32, layers.allow_tf32, layers.deterministic = tf32, tf32, True
    try:
        yield
    finally:
        dense.allow_tf32, layers.allow_tf32, layers.deterministic = before


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device is out of memory; the CPU's has no type of its own."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


@contextmanager
def fork_rng() -> Iterator[None]:
    """Restore the random state of the CPU and of every GPU in use after the block, and let no other thread
    draw random numbers meanwhile."""
    with RANDOM_NUMBERS, torch.random.fork_rng(_gpus_in_use()):
        yield


@contextmanager
def restore_rng() -> Iterator[None]:
    """The same for a long block, in which other threads draw random numbers too."""
    forked = torch.random.fork_rng(_gpus_in_use())
    with RANDOM_NUMBERS:
        forked.__enter__()
    try:
        yield
    finally:
        with RANDOM_NUMBERS:
            forked.__exit__(None, None, None)


def _gpus_in_use() -> Sequence[int]:
    return range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep the memory of freed tensors for the next ones, if the C library is glibc.

    By default it returns large blocks to the system, which then clears their pages again at every step: a
    tenth to a fifth of the time of a step with large tensors. What is left is returned at the end.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER_TRIM)
    try:
        yield
    finally:
        libc.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM)
        libc.malloc_trim(0)


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Flush denormal numbers (below 1.2e-38) to zero, on every thread that computes.

    Adam's running means decay into them where a gradient has become exactly zero (a dead unit, an unused
    latent), and CPUs take many times as long for such a number: a plain loop of 784-400-20 on Fashion-MNIST
    loses a quarter of its speed after 700 steps, in bfloat16 two fifths.
    """
    before = not bool(torch.tensor(1e-39) * 1)
    _on_all_threads(lambda: torch.set_flush_denormal(True))
    try:
        yield
    finally:
        _on_all_threads(lambda: torch.set_flush_denormal(before))


def _on_all_threads(do: Callable[[], object]) -> None:
    """Call `do` here and on the threads of OpenMP, on which torch's CPU kernels run.

    Threads that exist already have a state of their own; later ones start with that of this thread. Without
    OpenMP it is called here only.
    """
    do()
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if sys.platform != "win32" else None
    if parallel is not None:
        body = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: bool(do()))
        parallel(body, None, torch.get_num_threads(), 0)
