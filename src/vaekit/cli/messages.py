"""Mistakes on the command line, each in one sentence that says what to type instead."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from vaekit.config.overrides import alternatives
from vaekit.config.suggestions import did_you_mean


def usage_message(error: CycloptsError) -> str:
    """What is wrong with a command line that could not be parsed."""
    return " ".join(filter(None, _parts(error)))


def _parts(error: CycloptsError) -> Iterator[str]:
    if isinstance(error, UnknownOptionError):
        option = (error.token.keyword or error.token.value).partition("=")[0]
        yield f"No such option {option!r}."
        names = [name for argument in error.argument_collection for name in argument.names]
        yield did_you_mean(option, names)
    elif isinstance(error, UnknownCommandError) and error.unused_tokens:
        yield f"No such command {error.unused_tokens[0]!r}."
        commands = [name for name in error.app or () if not name.startswith("-")]
        yield did_you_mean(error.unused_tokens[0], commands)
        yield "`vaekit --help` lists the commands."
    elif isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        yield _too_many(error.unused_tokens, error)
    elif isinstance(error, MissingArgumentError) and error.argument:
        name = error.keyword or error.argument.name
        yield f"Option {name!r} needs a value." if name.startswith("-") else f"Missing argument {name}."
    elif isinstance(error, RepeatArgumentError):
        yield f"Option {error.token.keyword!r} is given twice."
    elif isinstance(error, CoercionError) and error.token and error.argument:
        yield f"{error.token.keyword or error.argument.name}: must be {_expected(error.target_type)}"
        yield f"(got {error.token.value})."
        if get_origin(error.target_type) is Literal:
            yield did_you_mean(error.token.value, [str(choice) for choice in get_args(error.target_type)])
    else:
        yield str(error)


def _too_many(unused: list[str], error: CycloptsError) -> str:
    if len(unused) == 1 or error.app is None:
        return f"Unexpected argument {unused[0]!r}."
    arguments = error.app.assemble_argument_collection()
    names = [argument.name for argument in arguments if argument.index is not None]
    return f"Too many arguments: {len(names) + len(unused)} instead of {len(names)} ({' '.join(names)})."


def _expected(target: Any) -> str:
    if get_origin(target) is Literal:
        return alternatives([str(choice) for choice in get_args(target)])
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(target, "another value")
