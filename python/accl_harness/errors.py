"""The errors that the command line turns into one or two plain lines and an exit status."""


class UserError(Exception):
    """Bad input: the message names what was wanted and what came. Exit status 2."""


class CheckFailed(Exception):
    """A check ran to its end and failed. Exit status 1."""


class DataWarning(UserWarning):
    """Something in the data was read in the likeliest way; the message names file and option."""
