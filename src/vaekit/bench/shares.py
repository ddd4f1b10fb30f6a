"""Where the time of a training goes, on the thread that trains."""

import cProfile
import pstats
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaekit.training.plan import TrainRequest
from vaekit.training.session import run_training

PARTS = {
    "data": [("loader.py", "train", "loop.py")],
    "forward": [("step.py", "loss_fn", "step.py")],
    "backward": [("_tensor.py", "backward", "step.py")],
    "optimizer": [("optimizer.py", "wrapper", "step.py"), ("_compile.py", "inner", "step.py")],
    "EMA": [("ema.py", "update", "step.py")],
    "logging": [("loop.py", "add", "train"), ("monitor.py", "on_step", ""), ("metrics.py", "append_metrics", "")],
    "checkpoint": [("checkpointing.py", "_save", ""), ("checkpointing.py", "_snapshot", "on_epoch_end")],
    "pictures": [("artifacts.py", "_draw", ""), ("artifacts.py", "on_train_begin", "")],
    "validation": [("loop.py", "evaluate", "")],
    "files at the end": [("background_writer.py", "__exit__", "")],
}
"""What is counted to a part: functions by file and name, all of their calls or those by one caller."""


AFTERWARDS = [("artifacts.py", "on_saved", "")]
"""What is no part of the training."""


def shares(settings: Mapping[str, Any], source: Any = None) -> dict[str, float]:
    """Shares of the time of a whole `vaekit train --preset classic`, without start and fitted prior.

    Profiling adds a little to whatever is made of many calls. Pictures and files are written on a thread of their own:
    what they take of this one is in the shares, what they take of the processor makes all else a little slower. Not
    compiled, and so without the trial that decides on it; arithmetic is what `--precision auto` finds.
    """
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        request = TrainRequest(source, (settings, {"compile": "off"}), "classic", Path(folder) / "run", quiet=True)
        profile.enable()
        try:
            run_training(request)
        finally:
            profile.disable()
    stats: Any = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    whole = _seconds(stats, ("session.py", "_run_session", "run_training")) - sum(
        _seconds(stats, one) for one in AFTERWARDS
    )
    found = {name: sum(_seconds(stats, one) for one in counted) / whole for name, counted in PARTS.items()}
    return {**found, "other": 1 - sum(found.values())}


def _seconds(stats: Any, function: tuple[str, str, str]) -> float:
    """Seconds in a function and in all that it calls, by any caller or by one, named by its file or itself."""
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
