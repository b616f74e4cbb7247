"""A training's options as a YAML file, and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from .config import TrainConfig
from .data.options import (
    ImageMoves,
    MaskBankOptions,
    ReferenceOptions,
    WeakOptions,
)
from .errors import Damaged, UserError
from .storage import write_text
from .terms.gated_crf import CRFOptions

EARLIER_NAMES = {
    "augment": "image_moves",
    "references.augmentation": "references.mask_bank",
}
"""Names that options had once and their names now; flags and files with the earlier ones work."""


def present_name(name: str) -> str:
    """The name now of an option, or of a part of one, that may be given by its earlier name."""
    for earlier, now in EARLIER_NAMES.items():
        if name == earlier or name.startswith(f"{earlier}."):
            return now + name.removeprefix(earlier)
    return name


def with_present_names(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The content of a file of options with today's names in place of earlier ones.

    Raises:
        UserError: an option is there by both of its names.
    """
    renamed: dict[str, Any] = {}
    for name, value in content.items():
        path = present_name(f"{prefix}{name}")
        now = path.removeprefix(prefix)
        if now in renamed or (now != str(name) and now in content):
            raise UserError(f"{path} is given twice, once by its earlier name; leave one out")
        renamed[now] = with_present_names(value, f"{path}.") if isinstance(value, dict) else value
    return renamed


def config_content(config: TrainConfig) -> dict[str, Any]:
    """The config as numbers, strings, lists and dictionaries."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    """Tuples as lists, as YAML has them."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def config_of_content(content: dict[str, Any]) -> TrainConfig:
    """The config behind what :func:`config_content` gave, of this version or an earlier one.

    Raises:
        TypeError, KeyError, AttributeError: it is of another version.
    """
    content = with_present_names(content)
    for name in ("class_balance", "second_stage"):
        content.setdefault(name, False)  # runs from before the option go on without it
    content["weak"] = WeakOptions(**content["weak"])
    references = dict(content["references"])
    references["mask_bank"] = MaskBankOptions(**references["mask_bank"])
    content["references"] = ReferenceOptions(**references)
    content["image_moves"] = ImageMoves(**content.get("image_moves", {}))
    content["crf"] = CRFOptions(**content.get("crf", {}))
    content["betas"] = tuple(content["betas"])
    for name in ("bounds", "prior"):
        if isinstance(content[name], list):
            content[name] = tuple(content[name])
    return TrainConfig(**content)


def save_config(config: TrainConfig, path: Path) -> None:
    """Write the resolved config as YAML, whole or not at all."""
    write_text(path, yaml.safe_dump(config_content(config), sort_keys=False))


def load_config(path: Path) -> TrainConfig:
    """Read what :func:`save_config` wrote.

    Raises:
        UserError: no such file, or it holds options of another version.
        Damaged: the file is not whole.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is no run folder: it has no {path.name}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise Damaged(path, f"is damaged ({error})") from error
    if not isinstance(content, dict):
        raise Damaged(path, "is damaged (it holds no options)")
    try:
        return config_of_content(content)
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a config of this version: {error}") from error
