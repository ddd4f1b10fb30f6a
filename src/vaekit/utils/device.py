"""Where to compute, in what memory, and with what numbers."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vaekit.errors import UserError, setting

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The names of malloc's parameters for mallopt(3), from glibc's malloc.h."""


USUAL, MOST, ALL = 64 << 20, 32 << 20, 2**31 - 1
"""What glibc trims by at most by itself, in bytes; the largest block that it lets come from the heap; everything."""


def is_available(device: torch.device) -> bool:
    """Whether this machine has the device."""
    match device.type:
        case "cuda":
            return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
        case "mps":
            return torch.backends.mps.is_available()
        case kind:
            return kind == "cpu"


def best_device() -> torch.device:
    """A GPU where there is one, else the processor."""
    return next(device for device in map(torch.device, ("cuda", "mps", "cpu")) if is_available(device))


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of a name: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        UserError: this machine has no such device.
    """
    if device == "auto":
        return best_device()
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"{device!r} is not a device.", "Use auto, cpu, cuda, cuda:1 or mps.", "device") from None
    if not is_available(found):
        raise UserError(f"{found} is not available on this machine.", f"Use {setting('device', 'auto')}.", "device")
    return found


def fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies matrices of bfloat16 in units made for it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def fast_tf32(device: torch.device) -> bool:
    """Whether the device multiplies matrices of float32 in units that read 19 of their bits."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def hardware_name(device: torch.device) -> str:
    """What computes: the name of a GPU, or what a processor can do. On another, results differ in their last bits."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return torch.backends.cpu.get_cpu_capability() + " with AMX" * fast_bf16(device)
    return device.type


@contextmanager
def matmul_precision(tf32: bool = False) -> Iterator[None]:
    """On NVIDIA GPUs, take products of float32 numbers whole, or of 19 of their bits (TF32), which torch does by
    itself for convolutions; and convolutions in ways that give the same bits at every call."""
    dense, layers = torch.backends.cuda.matmul, torch.backends.cudnn
    before = dense.allow_tf32, layers.allow_tf32, layers.deterministic
    dense.allow_tf32, layers.allow_tf32, layers.deterministic = tf32, tf32, True
    try:
        yield
    finally:
        dense.allow_tf32, layers.allow_tf32, layers.deterministic = before


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device does not suffice; a processor's comes without a type."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


@contextmanager
def fork_rng() -> Iterator[None]:
    """Random numbers outside the block are as if it had not been, on the processor and every GPU in use."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(gpus):
        yield


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep the memory of freed tensors for the next ones, where the C library is glibc: by itself it hands blocks of
    many megabytes back to the system, which then clears their pages anew at every step, a tenth to a fifth of the time
    of a step with large tensors. What is left over goes back at the end."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    libc.mallopt(MMAP_THRESHOLD, MOST)
    libc.mallopt(TRIM_THRESHOLD, ALL)
    try:
        yield
    finally:
        libc.mallopt(TRIM_THRESHOLD, USUAL)
        libc.malloc_trim(0)


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Take numbers below 1.2e-38 for zero, on every thread that computes.

    The running means of Adam and its kin decay into them wherever a gradient has become exactly zero (a unit that no
    longer fires, a latent that is no longer used), and processors take many times as long for such a number: a bare
    loop of 784-400-20 on Fashion-MNIST loses a quarter of its speed after 700 steps, in bfloat16 two fifths.
    """
    before = not bool(torch.tensor(1e-39) * 1)
    _on_all_threads(lambda: torch.set_flush_denormal(True))
    try:
        yield
    finally:
        _on_all_threads(lambda: torch.set_flush_denormal(before))


def _on_all_threads(do: Callable[[], object]) -> None:
    """Here, and on the threads of OpenMP, which torch's processor kernels run on: those that have already begun go
    their own way, later ones begin with the state of this one. Where there is no OpenMP to be found, here alone."""
    do()
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if sys.platform != "win32" else None
    if parallel is not None:
        body = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: bool(do()))
        parallel(body, None, torch.get_num_threads(), 0)
