"""Which class a label, a value or a colour stands for, as people and tools write it down."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError

REST = "*"
"""The key of a table for all labels that it does not name."""

WORDS: dict[str, dict[str, str]] = {
    "ilastik": {"1": "background", "2": "object"},
    "values": {},
    "instances": {REST: "object"},
}
"""Tables that have a name: ilastik's two labels, each value a class, all values one class."""

BACKGROUND = ("background", "_background_", "bg")
"""Names of the background, in any case."""
UNKNOWN = ("unlabelled", "unlabeled", "unknown", "ignore", "ignore*", "__ignore__")
"""Names of what nobody knows: these pixels stay unlabelled."""

NOT_OBJECTS = ("background", "unlabelled")
"""What :func:`class_of` gives for these names."""

_COLOUR = re.compile(r"#[0-9a-f]{6}")


def read_table(table: str) -> dict[str, str]:
    """Label, value (``1``) or colour (``#rrggbb``) -> class.

    Args:
        table: one of :data:`WORDS`, or a file: YAML or JSON, CVAT's ``labelmap.txt``, ITK-SNAP's
            label descriptions (``.txt``, ``.label``), 3D Slicer's colour table (``.ctbl``).

    Raises:
        UserError: no such file, or not a table.
    """
    if table in WORDS:
        return WORDS[table]
    path = Path(table)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(WORDS)
        raise UserError(f"--table {table}: cannot be read ({error}); or one of {known}") from error
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        return _of_yaml(path, text)
    found = dict(filter(None, map(_line, text.splitlines())))
    if not found:
        raise UserError(
            f"--table {path}: holds no line of a table; wanted YAML ('1: cell', '#ff0000: vessel', "
            "'label: class'), CVAT's labelmap.txt, or the labels of ITK-SNAP or 3D Slicer"
        )
    return found


def _of_yaml(path: Path, text: str) -> dict[str, str]:
    # A colour at the start of a line is a comment in YAML, unless it is quoted.
    text = re.sub(r"(?m)^(\s*)(#[0-9a-fA-F]{6})(\s*:)", r'\1"\2"\3', text)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--table {path}: is no YAML ({reason})") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"--table {path}: wanted lines of 'label: class', got {content!r:.60}")
    return {_key(label): str(name) for label, name in content.items()}


def _key(label: Any) -> str:
    text = str(label).strip()
    parts = re.fullmatch(r"\(?(\d+)[, ]+(\d+)[, ]+(\d+)\)?", text)
    if parts:
        return colour_name([int(part) for part in parts.groups()])
    return text.lower() if _COLOUR.fullmatch(text.lower()) else text


def _line(line: str) -> tuple[str, str] | None:
    """A line of a tool's table of labels."""
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    cvat = re.match(r"([^:]+):\s*(\d+),\s*(\d+),\s*(\d+)\s*:", line)
    if cvat:
        return colour_name([int(part) for part in cvat.groups()[1:]]), cvat[1].strip()
    snap = re.match(r'\s*(\d+)(?:\s+[\d.]+){6}\s+"(.*)"\s*$', line)
    if snap:
        return snap[1], "unlabelled" if snap[1] == "0" else snap[2]
    slicer = re.match(r"\s*(\d+)\s+(\S+)(?:\s+[\d.]+){4}\s*$", line)
    if slicer:
        return slicer[1], "unlabelled" if slicer[1] == "0" else slicer[2]
    return None


def colour_name(colour: Any) -> str:
    """Red, green and blue (0 to 255) as ``#rrggbb``."""
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def has_colours(table: dict[str, str]) -> bool:
    """Whether the keys of a table are colours."""
    return any(_COLOUR.fullmatch(key) for key in table)


def class_of(label: str, table: dict[str, str] | None) -> str | None:
    """The class that a label stands for; None if the table does not know it.

    The background is ``background`` and what nobody knows ``unlabelled``, however the tool spells
    it. A value without a name is ``value 1``.
    """
    name = label if not table else table.get(label, table.get(REST))
    if name is None:
        return None
    if name.lower() in BACKGROUND:
        return "background"
    if name.lower() in UNKNOWN:
        return "unlabelled"
    return f"value {name}" if name.isdigit() else name
