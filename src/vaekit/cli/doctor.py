"""Versions and hardware of this installation."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from vaekit.data.packs.cache import cache_folder, clear_cache
from vaekit.evaluation.features import features
from vaekit.utils.device import best_device, fast_bf16, fast_tf32
from vaekit.version import VERSION

PACKAGES = ("torch", "numpy", "pillow", "pydantic", "safetensors", "seaborn")


def report() -> str:
    """Versions, device, threads, precision, free disk space and cache, one per line."""
    cache = cache_folder()
    used = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) if cache.exists() else 0
    rows = {
        "vaekit": VERSION,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: _version(name) for name in PACKAGES},
        "device": _device(),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "precision": _precision(best_device()),
        "features": features(),
        "free disk": f"{_free(Path.cwd()) / 1e9:,.1f} GB here, {_free(cache) / 1e9:,.1f} GB for the cache",
        "cache": f"{cache} ({used / 1e6:,.1f} MB; `vaekit doctor --clear-cache` deletes it)",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _precision(device: torch.device) -> str:
    if fast_bf16(device):
        return "float32, tf32, bfloat16" if fast_tf32(device) else "float32, bfloat16"
    accelerated = "float32, tf32" if fast_tf32(device) else "float32"
    processor = "processor" if device.type == "cpu" else "GPU"
    return f"{accelerated} (bfloat16 is not accelerated on this {processor})"


def clear() -> str:
    """Delete cached image data, which is rebuilt when needed."""
    return f"Freed {clear_cache() / 1e6:,.1f} MB in {cache_folder()}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _device() -> str:
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return "mps (Apple GPU)" if torch.backends.mps.is_available() else "cpu (no GPU found)"


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
