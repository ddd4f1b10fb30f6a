"""Where the time of a training goes, on the training thread."""

import cProfile
import pstats
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaekit.training.request import TrainRequest
from vaekit.training.session import run_training

PARTS = {
    "data": [("loader.py", "train", "loop.py")],
    "forward": [("step.py", "loss_fn", "step.py")],
    "backward": [("_tensor.py", "backward", "step.py")],
    "optimizer": [("optimizer.py", "wrapper", "step.py"), ("_compile.py", "inner", "step.py")],
    "EMA": [("ema.py", "update", "")],
    "logging": [
        ("loop.py", "add", "train"),
        ("monitor.py", "on_step", ""),
        ("metrics.py", "append_metrics", ""),
    ],
    "checkpoint": [("checkpointing.py", "_save", ""), ("checkpointing.py", "_snapshot", "on_epoch_end")],
    "pictures": [("artifacts.py", "_draw", ""), ("artifacts.py", "on_train_begin", "")],
    "validation": [("loop.py", "evaluate", "")],
    "files at the end": [("background_writer.py", "__exit__", "")],
}
"""Functions that count towards each part: file, name, and a caller (or "" for all calls)."""

AFTERWARDS = [("artifacts.py", "on_saved", "")]
"""What does not count as training."""


def time_shares(settings: Mapping[str, Any], source: Any = None) -> dict[str, float]:
    """Shares of the time of a whole `vaekit train --preset classic`, without startup and fitted prior.

    Profiling adds a little to whatever makes many calls. Pictures and files are written by a background
    thread: the shares hold what they cost the training thread; their load on the processor slows everything
    down a little. The model is not compiled; precision is automatic.

    Args:
        settings: over those of the preset.
        source: the images; None for the bundled sample.

    Returns:
        The share of each part of `PARTS`, and of all else as "other"; the sum is 1.
    """
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        request = TrainRequest(
            source, (settings, {"compile": "off"}), "classic", Path(folder) / "run", quiet=True
        )
        profile.enable()
        try:
            run_training(request)
        finally:
            profile.disable()
    stats: Any = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = _seconds(stats, ("session.py", "_run_session", "run_training"))
    total -= sum(_seconds(stats, function) for function in AFTERWARDS)
    shares = {name: sum(_seconds(stats, one) for one in counted) / total for name, counted in PARTS.items()}
    return {**shares, "other": 1 - sum(shares.values())}


def _seconds(stats: Any, function: tuple[str, str, str]) -> float:
    """Seconds in a function and what it calls; with a caller (function or file), in those calls only."""
    file, name, caller = function
    total = 0.0
    for (where, _, called), (*_, cumulative, callers) in stats.items():
        if called != name or Path(where).name != file:
            continue
        if not caller:
            total += cumulative
        for (by_file, _, by), (*_, spent) in callers.items():
            total += spent if caller and caller in (by, Path(by_file).name) else 0
    return total
