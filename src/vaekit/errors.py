"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake of the caller's, said in one sentence that names the thing and the remedy.

    The command line prints it on the last line of standard error and exits 2.
    """


class Interrupted(KeyboardInterrupt):
    """A signal stopped training; all of it is saved in the run, and `--resume` goes on."""


class TrainingFailed(RuntimeError):
    """Training cannot go on; the message says what to do."""
