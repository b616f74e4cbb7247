"""The command ``accl``: parsing, help, and errors as plain lines.

Nothing heavy is imported until a command is known: ``accl --help`` answers at once.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .commands import COMMANDS, Command
from .errors import CheckFailed, HarnessWarning, NoSpace, UserError
from .options import with_config_text
from .storage import NO_SPACE

BAD_INPUT = 2
FAILED_CHECK = 1
INTERRUPTED = 130

SHORT = {"--crf": "--crf.weight", "--ignore_index": "--weak.unlabelled"}
"""Options that have a short form."""

NEAREST = {"±": "+-", "–": "-", "…": "...", "×": "x"}
"""What stands for a character on a terminal that lacks it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status.

    0 done, 1 a check failed, 2 bad input, 130 interrupted. Errors go to stderr as one or two
    plain lines; ``--debug`` shows the traceback instead.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    _write_any_text()
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(_version())
        return 0
    command = COMMANDS.get(words[0])
    goes_on = command.goes_on if command else ""
    try:
        with _plain_warnings():
            _run(words[0], words[1:])
    except NoSpace as error:
        return _fail(_joined(f"{error}: make room", goes_on), BAD_INPUT, debug)
    except UserError as error:
        return _fail(str(error), BAD_INPUT, debug)
    except CheckFailed as error:
        return _fail(str(error), FAILED_CHECK, debug)
    except KeyboardInterrupt:
        return _fail(_joined("interrupted", goes_on), INTERRUPTED, debug)
    except BrokenPipeError:
        # The reader of our output has gone; closing stdout again at exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in NO_SPACE:
            return _fail(_joined(f"{error}: make room", goes_on), BAD_INPUT, debug)
        return _fail(str(error), BAD_INPUT, debug)
    return 0


def overview() -> str:
    """What ``accl --help`` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        (
            "usage: accl COMMAND [options]",
            "",
            "Weakly supervised segmentation with the adversarial constrained-CNN loss.",
            "",
            "commands:",
            *lines,
            "",
            "'accl COMMAND --help' explains a command and shows an example.",
            "--debug shows the traceback of an error, --version the version.",
        )
    )


def parser_of(name: str, words: Sequence[str] = ()):
    """The parser of a command; ``words`` may choose the preset that gives the defaults."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    class Parser(ArgumentParser):
        """Shows options with hyphens, as they are written on the command line."""

        def format_help(self) -> str:
            text = re.sub(r"--[a-z][\w.]*", _hyphened, super().format_help())
            return f"{text}\nexample:\n  {COMMANDS[name].example}\n"

        def format_usage(self) -> str:
            return re.sub(r"--[a-z][\w.]*", _hyphened, super().format_usage())

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    command: Command = COMMANDS[name]
    parser = Parser(
        prog=f"accl {name}",
        description=command.summary,
        exit_on_error=False,
        allow_abbrev=False,  # presets and switches are looked up by the whole name
    )
    command.arguments(parser, words)
    return parser


def _run(name: str, words: list[str]) -> None:
    if name not in COMMANDS:
        raise UserError(f"no command '{name}'; there are {', '.join(COMMANDS)}")
    from jsonargparse import ArgumentError

    words = with_config_text(words)
    parser = parser_of(name, words)
    try:
        parsed = parser.parse_args(_normalised(words, COMMANDS[name].switches()))
        options = parser.instantiate(parsed)
    except ArgumentError as error:
        raise UserError(_plain(str(error)) + f" (see 'accl {name} --help')") from error
    COMMANDS[name].run(options)


def _joined(message: str, goes_on: str) -> str:
    return f"{message}; {goes_on}" if goes_on else message


def _write_any_text() -> None:
    """Let a terminal or a pipe that takes fewer characters have the nearest ones instead."""
    codecs.register_error("accl", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="accl")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    wanted = error.object[error.start : error.end]
    found = "".join(NEAREST.get(letter, letter) for letter in wanted)
    return found.encode("ascii", "backslashreplace").decode("ascii"), error.end


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show this package's own warnings as one line; others look as ever."""
    with warnings.catch_warnings():
        other = warnings.showwarning

        def show(message, category, *where, **options) -> None:
            if issubclass(category, HarnessWarning):
                print(f"accl: warning: {message}", file=sys.stderr)
            else:
                other(message, category, *where, **options)

        warnings.showwarning = show
        warnings.simplefilter("always", HarnessWarning)
        yield


def _normalised(words: Sequence[str], switches: set[str]) -> list[str]:
    """``--n-train 8 --resume`` as the parser knows them: ``--n_train 8 --resume=true``."""
    from .config_file import present_name

    result = []
    for index, word in enumerate(words):
        if not word.startswith("--") or word == "--":
            result.append(word)
            continue
        name, equals, value = word.partition("=")
        name = "--" + present_name(name[2:].replace("-", "_"))
        name = SHORT.get(name, name)
        following = words[index + 1].lower() if index + 1 < len(words) else "--"
        if name[2:] in switches and not equals and following not in ("true", "false"):
            equals, value = "=", "true"
        result.append(name + equals + value)
    return result


def _hyphened(match: re.Match[str]) -> str:
    return match[0].replace("_", "-")


def _plain(message: str) -> str:
    """A parser's message on one line, options written as on the command line."""
    text = " ".join(message.split())
    found = re.fullmatch(r'Parser key "([\w.]+)": Expected an? (.*?)\. Got value: (.*)', text)
    if found:
        text = f"--{found[1]}: wanted {_readable(found[2])}, got {found[3]}"
    found = re.fullmatch(r'Parser key "([\w.]+)": Does not validate.*Given value: (.*)', text)
    if found:
        text = f"--{found[1]}: cannot be {found[2]}"
    return re.sub(r"--[a-z][\w.]*", _hyphened, text)


def _readable(kind: str) -> str:
    """``typing.Literal['a', 'b']`` as ``'a' or 'b'``, ``<class 'int'>`` as ``int``."""
    kind = re.sub(r"<class '(\w+)'>", r"\1", kind)
    kind = re.sub(r"typing\.(Literal|Optional|Union)", r"\1", kind)
    options = re.fullmatch(r"Literal\[(.*)\]", kind)
    return " or ".join(options[1].split(", ")) if options else kind


def _fail(message: str, status: int, debug: bool) -> int:
    if debug:
        raise
    print(f"accl: {message}", file=sys.stderr)
    return status


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"accl {version('accl_ext')}"
    except PackageNotFoundError:
        return "accl (not installed)"
