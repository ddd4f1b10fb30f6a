"""The command line. Errors are one sentence on the last line of standard error."""

import io
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from vaekit.cli.evaluate import evaluate, rank, report
from vaekit.cli.explore import explore
from vaekit.cli.export import export
from vaekit.cli.generate import fit_prior, generate, reconstruct
from vaekit.cli.help import FLAG_ALL, HelpFormatter
from vaekit.cli.latents import encode, interpolate, traverse
from vaekit.cli.publish import publish
from vaekit.cli.tools import bench, doctor, presets
from vaekit.cli.train import train
from vaekit.config.overrides import alternatives
from vaekit.config.suggestions import did_you_mean
from vaekit.errors import Interrupted, TrainingFailed, UserError, flag_spelling, spell_settings, spelled
from vaekit.utils.logging import wrapped
from vaekit.version import VERSION

EXIT_INTERRUPTED = 130
"""Exit status of another command that Ctrl-C ended."""
EXIT_RESUMABLE = 75
"""Exit status of an interrupted run that can be resumed (EX_TEMPFAIL)."""
BUSY_WAIT = "10000"
"""Turns of the loop in which a thread of OpenMP waits for others before it sleeps. With many more, as by
default, another program on the same cores makes a command several times as slow."""
HELP = HelpFormatter()

app = App(
    name="vaekit",
    help="Train a variational autoencoder on a folder of images, and generate new images.",
    version=VERSION,
    version_flags=["--version"],
    help_format="plaintext",
    help_formatter=HELP,
    group_parameters=Group("Options"),
    default_parameter=Parameter(negative_iterable=()),
    suppress_keyboard_interrupt=False,
)
ARGUMENTS: dict[Callable[..., None], str] = {
    train: "[DATA]",
    generate: "RUN",
    fit_prior: "RUN",
    reconstruct: "RUN IMAGES...",
    evaluate: "RUN",
    encode: "RUN [DATA]",
    interpolate: "RUN A B",
    traverse: "RUN",
    rank: "RUN [DATA]",
    report: "RUN",
    explore: "RUN",
    publish: "RUN --to FOLDER/|USER/NAME --license LICENSE",
    export: "RUN",
    bench: "[WORKLOADS...]",
    presets: "[NAME]",
    doctor: "",
}
"""The commands, and their arguments as the help shows them."""
for command, arguments in ARGUMENTS.items():
    name = command.__name__.replace("_", "-")
    app.command(command, usage=f"vaekit {name} {arguments}".rstrip() + " [OPTIONS]")
app["train"].help_epilogue = f"All options: vaekit train {FLAG_ALL}"
app.register_install_completion_command(help="Install completion of commands and options for your shell.")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 success, 1 failure, 2 user error, 75 interrupted but resumable."""
    status = _run(arguments)
    if status == EXIT_INTERRUPTED:  # threads of libraries may still run, which abort a normal exit
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def limit_busy_waiting() -> None:
    """Let threads that wait for others sleep sooner. It has an effect before torch is imported only."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", BUSY_WAIT)


def _run(arguments: list[str] | None) -> int:
    limit_busy_waiting()
    spell_settings(flag_spelling)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for file names that the terminal cannot show
    arguments = sys.argv[1:] if arguments is None else arguments
    if FLAG_ALL in arguments:
        HELP.show_all, app["train"].help_epilogue = True, None
        arguments = [*(argument for argument in arguments if argument != FLAG_ALL), "--help"]
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return 0
    except CycloptsError as error:
        return _fail(2, " ".join(filter(None, _usage_message(error))))
    except UserError as error:
        return _fail(2, str(error))
    except (BrokenPipeError, SystemExit):  # the reader of the output is gone: `vaekit presets | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Interrupted as error:
        return _fail(EXIT_RESUMABLE, spelled(str(error)))
    except KeyboardInterrupt:
        return _fail(EXIT_INTERRUPTED, "Interrupted.")
    except (OSError, TrainingFailed) as error:
        return _fail(1, str(error))
    except Exception as error:  # a bug: show where
        traceback.print_exc()
        return _fail(1, str(error) or type(error).__name__)


def _fail(status: int, message: str) -> int:
    text = "vaekit: " + " ".join(message.split())
    if sys.stderr.isatty():
        text = wrapped(text, shutil.get_terminal_size().columns)
    print(text, file=sys.stderr)
    return status


def _usage_message(error: CycloptsError) -> Iterator[str]:
    """What is wrong with a command line that could not be parsed, and what to type instead."""
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
        target = error.target_type
        types: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}
        choices = [str(choice) for choice in get_args(target)] if get_origin(target) is Literal else []
        expected = alternatives(choices) if choices else types.get(target, "another value")
        yield f"{error.token.keyword or error.argument.name}: must be {expected} (got {error.token.value})."
        yield did_you_mean(error.token.value, choices)
    else:
        yield str(error)


def _too_many(unused: list[str], error: CycloptsError) -> str:
    if len(unused) == 1 or error.app is None:
        return f"Unexpected argument {unused[0]!r}."
    arguments = error.app.assemble_argument_collection()
    names = [argument.name for argument in arguments if argument.index is not None]
    text = f"Too many arguments: {len(names) + len(unused)} instead of {len(names)} ({' '.join(names)})."
    folders = {Path(argument).parent for argument in unused if Path(argument).is_file()}
    return f"{text} Give the folder of the files, {folders.pop()}." if len(folders) == 1 else text
