"""The options of a training as options of a command: presets, YAML files, on-off switches."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, get_type_hints

from .errors import UserError

FIRST = (
    *("config", "data", "method", "methods", "out", "resume", "preset", "seed", "seeds"),
    *("size", "epochs", "batch_size", "lr", "alpha", "alphas", "jobs"),
)
"""The options that most people need; the help shows them before the groups."""


def add_config(
    parser: Any, words: Sequence[str], preset: str, skip: set[str] | None = None
) -> None:
    """All options of a training, with the defaults of the preset that the words choose.

    Raises:
        UserError: no preset of that name.
    """
    from .config import PRESETS, default_preset
    from .option_groups import GROUPS

    parser.add_argument(
        "--config", action="config", help="Options are read from this YAML file; flags win."
    )
    for group in GROUPS:
        names = {field.name for field in fields(group)}
        parser.add_class_arguments(group, None, skip=names & (skip or set()))
    if preset == "small":
        preset = default_preset(_whole(given(words, "classes")))
    preset = given(words, "preset") or preset
    if preset not in PRESETS:
        raise UserError(f"--preset must be one of {', '.join(PRESETS)}, got '{preset}'")
    parser.set_defaults({"preset": preset, **_flat(PRESETS[preset])})


def show_first(parser: Any) -> None:
    """Put the options that matter first into a group of their own before the others.

    argparse has no public way to order groups; these two lists are what its help is written from.
    """
    parser.usage = "%(prog)s [options]"
    first = parser.add_argument_group("The options that matter first")
    by_name = {action.dest: action for action in parser._actions}
    for action in parser._actions:
        if action.help == "Path to a configuration file.":
            action.help = "The options of this group are read from this YAML file or text."
    for group in parser._action_groups:
        group._group_actions = [a for a in group._group_actions if a.dest not in FIRST]
    first._group_actions = [by_name[name] for name in FIRST if name in by_name]
    kept = [group for group in parser._action_groups if group._group_actions and group is not first]
    parser._action_groups = [first, *kept]


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """Parts of a config as options of their own: ``image_moves.shift``."""
    flat = {}
    for name, value in options.items():
        parts = asdict(value) if is_dataclass(value) else None
        flat |= {name: value} if parts is None else {f"{name}.{k}": v for k, v in parts.items()}
    return flat


def given(words: Sequence[str], option: str) -> Any:
    """The value of an option by its flag, or else by the YAML file; None where neither has it."""
    import yaml

    flags = {}
    for name in (f"--{option}", "--config"):
        for value in _values(words, name):
            flags[name] = value
    if f"--{option}" in flags or "--config" not in flags:
        return flags.get(f"--{option}")
    text = flags["--config"]
    content = yaml.safe_load(text if "\n" in text else config_text(text))
    return content.get(option) if isinstance(content, dict) else None


def with_config_text(words: Sequence[str]) -> list[str]:
    """The words with the content of the ``--config`` file in place of its name.

    So the file is read here, whatever the system's encoding is, and once.
    """
    result = list(words)
    for index, word in enumerate(words):
        if word.startswith("--config="):
            result[index] = "--config=" + config_text(word.partition("=")[2])
        elif word == "--config" and index + 1 < len(words):
            result[index + 1] = config_text(words[index + 1])
    return result


def config_text(path: str) -> str:
    """A YAML file of options as text that ends with a line break.

    Raises:
        UserError: no such file, not UTF-8 (or UTF-16 with its mark), no YAML, or no options in it.
    """
    import yaml

    from .config_file import with_present_names

    try:
        with open(path, "rb") as file:
            content = file.read()
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if marked else "utf-8-sig")
        options = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise UserError(
            f"--config: {path} is not UTF-8 text ({error}): save it as UTF-8"
        ) from error
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config: {path} cannot be read: {reason}") from error
    if options is not None and not isinstance(options, dict):
        raise UserError(f"--config: {path} must hold lines of 'option: value', got {options!r:.60}")
    if options is None:
        return "{}\n"
    renamed = with_present_names(options)
    if renamed != options:
        text = yaml.safe_dump(renamed, sort_keys=False, allow_unicode=True)
    return text.rstrip() + "\n"


def _values(words: Sequence[str], name: str) -> list[str]:
    """What stands after an option in ``--option VALUE`` and ``--option=VALUE``."""
    found = []
    for index, word in enumerate(words):
        if word.startswith(name + "="):
            found.append(word.partition("=")[2])
        elif word == name and index + 1 < len(words):
            found.append(words[index + 1])
    return found


def _whole(value: Any) -> int | None:
    """An option's value as a number; None where it is none, which the parser will tell."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def config_of(options: Any):
    """The config behind the parsed options of a command."""
    from .config import TrainConfig

    return TrainConfig(**fields_of(TrainConfig, options))


def fields_of(kind: type, options: Any) -> dict[str, Any]:
    """The options that are fields of a dataclass."""
    return {f.name: options[f.name] for f in fields(kind) if f.name in options}


def config_switches() -> set[str]:
    """All on-off options of a training, those of its parts as ``part.name``."""
    from .config import TrainConfig

    return switches_of(TrainConfig)


def weak_switches() -> set[str]:
    """The on-off options of weak labels."""
    from .data.options import WeakOptions

    return switches_of(WeakOptions)


def import_switches() -> set[str]:
    """The on-off options of ``accl import``."""
    from .annotations.options import ImportOptions

    return switches_of(ImportOptions)


def mask_bank_switches() -> set[str]:
    """The on-off options of the masks made from painted ones."""
    from .data.options import MaskBankOptions

    return switches_of(MaskBankOptions)


def switches_of(kind: type, prefix: str = "") -> set[str]:
    """Names of the on-off fields of a dataclass and of the dataclasses in it."""
    found = set()
    for name, hint in get_type_hints(kind).items():
        if hint in (bool, bool | None):
            found.add(prefix + name)
        elif is_dataclass(hint):
            found |= switches_of(hint, f"{prefix}{name}.")
    return found
