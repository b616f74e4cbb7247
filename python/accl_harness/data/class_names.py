"""``classes.yaml`` of a data set: index -> name of the class, 0 the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from ..errors import UserError
from ..storage import write_text

FILE = "classes.yaml"


def read_class_names(root: str | Path) -> tuple[str, ...] | None:
    """The names by index, the background's first; None where the data set has no such file.

    Raises:
        UserError: the file is no table of names by 0, 1, 2 and so on.
    """
    path = Path(root) / FILE
    if not path.is_file():
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or sorted(content, key=str) != sorted(
        range(len(content)), key=str
    ):
        raise UserError(
            f"{path}: wanted a name for each of 0 (background), 1, 2 and so on, in lines such as "
            f"'1: cell', got {content!r:.60}"
        )
    names = tuple(str(content[index]) for index in range(len(content)))
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{path}: wanted two or more names, each once, got {', '.join(names)}")
    return names


def names_for(root: str | Path, classes: int | None) -> tuple[str, ...] | None:
    """The names of the classes that a data set is read with; None where it names none.

    With one object of several named classes nobody is asked which it is: None.

    Args:
        root: the data set.
        classes: number of classes; None: one object.

    Raises:
        UserError: it names another number of classes.
    """
    names = read_class_names(root)
    if names is None or classes is None or len(names) == classes:
        return names if names is None or classes is not None or len(names) == 2 else None
    raise UserError(
        f"{Path(root) / FILE} names {len(names)} classes ({', '.join(names)}), and --classes is "
        f"{classes}; the background counts"
    )


def class_title(index: int | str, names: Sequence[str] | None) -> str:
    """The name of a class, or its index where it has none."""
    return names[int(index)] if names else f"class {index}"


def write_class_names(root: str | Path, names: Sequence[str]) -> None:
    """Write the names, the background's first."""
    text = yaml.safe_dump(dict(enumerate(map(str, names))), sort_keys=False, allow_unicode=True)
    write_text(Path(root) / FILE, text)
