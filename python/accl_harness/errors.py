"""The errors that the command line turns into one or two plain lines and an exit status."""


class UserError(Exception):
    """Bad input: the message names what was wanted and what came. Exit status 2."""


class CheckFailed(Exception):
    """A check ran to its end and failed. Exit status 1."""


class HarnessWarning(UserWarning):
    """What a person should know and what stops nothing; the command line shows it as one line."""
