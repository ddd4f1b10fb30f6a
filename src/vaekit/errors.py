"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake of the caller's, said in one sentence that names the thing and the remedy.

    The command line prints it on the last line of standard error and exits 2.
    """
