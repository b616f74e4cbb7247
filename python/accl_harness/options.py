"""The options of a training as options of a command: presets, YAML files, on-off switches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from .errors import UserError


def add_config(
    parser: Any, words: Sequence[str], preset: str, skip: set[str] | None = None
) -> None:
    """All options of a training, with the defaults of the preset that the words choose."""
    from .config import PRESETS, TrainConfig

    parser.add_argument("--config", action="config", help="YAML file of options; flags win")
    parser.add_class_arguments(TrainConfig, None, skip=skip or set())
    preset = given(words, "preset") or preset
    if preset not in PRESETS:
        raise UserError(f"--preset must be one of {', '.join(PRESETS)}, got '{preset}'")
    parser.set_defaults({"preset": preset, **PRESETS[preset]})


def given(words: Sequence[str], option: str) -> Any:
    """The value of an option by its flag, or else by the YAML file; None where neither has it."""
    import yaml

    flags = {}
    for index, word in enumerate(words):
        for name in (f"--{option}", "--config"):
            if word.startswith(name + "="):
                flags[name] = word.partition("=")[2]
            elif word == name and index + 1 < len(words):
                flags[name] = words[index + 1]
    if f"--{option}" in flags or "--config" not in flags:
        return flags.get(f"--{option}")
    try:
        with open(flags["--config"], encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--config: {flags['--config']} cannot be read: {error}") from error
    return content.get(option) if isinstance(content, dict) else None


def config_of(options: Any):
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
    from .data.options import WeakOptions

    return switches_of(WeakOptions)


def augmentation_switches() -> set[str]:
    from .data.options import Augmentation

    return switches_of(Augmentation)


def switches_of(kind: type, prefix: str = "") -> set[str]:
    """Names of the on-off fields of a dataclass and of the dataclasses in it."""
    found = set()
    for name, hint in get_type_hints(kind).items():
        if hint in (bool, bool | None):
            found.add(prefix + name)
        elif is_dataclass(hint):
            found |= switches_of(hint, f"{prefix}{name}.")
    return found
