"""The errors that the command line turns into one or two plain lines and an exit status."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """Bad input: the message names what was wanted and what came. Exit status 2."""


class NoSpace(UserError):
    """The disk is full; the command line adds how the command goes on."""


class Damaged(UserError):
    """A file of the harness's own is not whole.

    Args:
        path: the file.
        found: what is wrong with it, as the end of a sentence that begins with the file.
        advice: what a person can do about it.
    """

    def __init__(self, path: str | Path, found: str, advice: str = ""):
        super().__init__(path, found, advice)  # as they came, so that processes can hand it on
        self.path, self.found, self.advice = Path(path), found, advice

    def __str__(self) -> str:
        text = " ".join(f"{self.path} {self.found}".split())
        return f"{text}: {self.advice}" if self.advice else text


class CheckFailed(Exception):
    """A check ran to its end and failed. Exit status 1."""


class HarnessWarning(UserWarning):
    """What a person should know and what stops nothing; the command line shows it as one line."""
