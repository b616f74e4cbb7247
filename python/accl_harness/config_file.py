"""A training's options as a YAML file, and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from .config import TrainConfig
from .data.options import (
    Augmentation,
    CRFOptions,
    ImageAugmentation,
    ReferenceOptions,
    WeakOptions,
)
from .errors import Damaged, UserError
from .storage import write_text


def config_content(config: TrainConfig) -> dict[str, Any]:
    """The config as numbers, strings, lists and dictionaries."""
    content = dataclasses.asdict(config)
    content["betas"] = list(config.betas)
    if not isinstance(config.bounds, str):
        content["bounds"] = list(config.bounds)
    return content


def config_of_content(content: dict[str, Any]) -> TrainConfig:
    """The config behind what :func:`config_content` gave, of this version or an earlier one.

    Raises:
        TypeError, KeyError, AttributeError: it is of another version.
    """
    content = dict(content)
    content["weak"] = WeakOptions(**content["weak"])
    references = dict(content["references"])
    references["augmentation"] = Augmentation(**references["augmentation"])
    content["references"] = ReferenceOptions(**references)
    content["augment"] = ImageAugmentation(**content.get("augment", {}))
    content["crf"] = CRFOptions(**content.get("crf", {}))
    content["betas"] = tuple(content["betas"])
    if not isinstance(content["bounds"], str):
        content["bounds"] = tuple(content["bounds"])
    return TrainConfig(**content)


def save_config(config: TrainConfig, path: Path) -> None:
    """Write the resolved config as YAML, whole or not at all."""
    import yaml

    write_text(path, yaml.safe_dump(config_content(config), sort_keys=False))


def load_config(path: Path) -> TrainConfig:
    """Read what :func:`save_config` wrote.

    Raises:
        UserError: no such file, or it holds options of another version.
        Damaged: the file is not whole.
    """
    import yaml

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
