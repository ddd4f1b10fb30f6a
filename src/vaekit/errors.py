"""Exceptions, free of torch. Their texts name settings by `setting`, which each surface spells its own
way."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

START, END = "\ue000", "\ue001"
"""Characters of Unicode's private use area that mark a setting inside a text."""


def setting(name: str, value: object = None) -> str:
    """A reference to a setting inside a message: `--batch-size 64` on the command line, `batch_size=64` in
    Python.

    Args:
        name: as in Python, with a dot for a component's own: "epochs", "objective.beta".
        value: what to set it to; None for the setting as such.
    """
    return f"{START}{name}{'' if value is None else f'={value}'}{END}"


def python_spelling(name: str, value: str | None) -> str:
    """epochs=5, objective={'beta': 4}; without a value the name in backticks."""
    slot, _, field = name.rpartition(".")
    if value is None:
        return f"`{name}`"
    literal = value if re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?|True|False|None", value) else repr(value)
    return f"{slot}={{{field!r}: {literal}}}" if slot else f"{name}={literal}"


def flag_spelling(name: str, value: str | None) -> str:
    """`--batch-size 64`; a switch that is on, `--resume`, or off, `--no-flip`."""
    flag = {"label": "class", "from_run": "from"}.get(name, name).replace("_", "-")
    if value in (None, "True"):
        return f"--{flag}"
    slot, _, field = flag.rpartition(".")
    return (
        f"--{f'{slot}.' if slot else ''}no-{field}" if value == "False" else f"--{flag} {shlex.quote(value)}"
    )


_spelling: Callable[[str, str | None], str] = python_spelling


def spell_settings(spelling: Callable[[str, str | None], str]) -> None:
    """Choose how this process spells settings in messages: the command line takes `flag_spelling`."""
    global _spelling  # noqa: PLW0603  a process has one surface
    _spelling = spelling


def spelled(text: str) -> str:
    """`text` with its settings spelled for this surface."""
    return re.sub(
        f"{START}([^{START}{END}=]*)(?:=([^{START}{END}]*))?{END}", lambda m: _spelling(m[1], m[2]), text
    )


class UserError(ValueError):
    """A mistake of the caller's: what is wrong, then how to fix it.

    The command line prints it on the last line of standard error and exits 2.

    Args:
        message: the fact, as a sentence; with `option`, what is wrong with its value.
        hint: the fix, as a sentence.
        option: the setting that is at fault, as in `setting`: "epochs", "objective.beta". It opens the text.
    """

    def __init__(self, message: str, hint: str = "", option: str = "") -> None:
        super().__init__(message, hint, option)
        self.message, self.hint, self.option = message, hint, option

    def __str__(self) -> str:
        parts = [f"{setting(self.option)}: {self.message}" if self.option else self.message, self.hint]
        return spelled(" ".join(filter(None, parts)))


class OutOfMemory(UserError):
    """A training step does not fit in the memory of the device, and dividing the batch cannot help."""


class TrainingFailed(RuntimeError):
    """Training cannot continue; the message says what to do. The command line exits 1."""

    def __str__(self) -> str:
        return spelled(super().__str__())


class Interrupted(KeyboardInterrupt):
    """A signal stopped training. Everything is saved in the run, and it can be resumed. The command line
    exits 75.

    Attributes:
        run: the folder of the run if its model can be used, with a sampling prior fitted after the stop; else
            None.
    """

    def __init__(self, message: str, run: Path | None = None) -> None:
        super().__init__(message)
        self.run = run
