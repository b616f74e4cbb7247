"""One self-contained HTML file: inline style, pictures as data URIs, no script, no request.

The page's own security policy forbids anything else, so a report can be mailed and opened
anywhere. The HTML stands in ``templates/``; every text is escaped there.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .table import Sheet


def page(title: str, lead: str, blocks: Iterable[Markup], refresh: int | None = None) -> str:
    """The whole document.

    Args:
        title: the heading.
        lead: the sentence below it.
        blocks: from the functions below, empty ones are left out.
        refresh: the browser reads the file again after so many seconds; None: never.
    """
    parts = {"title": title, "lead": lead, "blocks": blocks, "refresh": refresh}
    return _templates().get_template("page.html").render(parts)


def heading(text: str) -> Markup:
    """A heading over the blocks that follow."""
    return _block("heading", text)


def table(sheet: Sheet) -> Markup:
    """A sheet, wide ones scroll."""
    return _block("table", sheet)


def figure(path: Path | None, caption: str) -> Markup:
    """A PNG embedded as a data URI; nothing where ``path`` is None."""
    if path is None:
        return Markup()
    return _block("figure", base64.b64encode(path.read_bytes()).decode("ascii"), caption)


def notes(items: Sequence[str]) -> Markup:
    """A list of sentences."""
    return _block("notes", items)


def warnings(items: Sequence[str]) -> Markup:
    """What went wrong in the runs, in a box of its own; nothing where nothing did."""
    return _block("warnings", items) if items else Markup()


def facts(pairs: Sequence[tuple[str, str]]) -> Markup:
    """A definition list; a value in backquotes becomes code."""
    return _block("facts", pairs)


def _block(macro: str, *arguments: Any) -> Markup:
    return getattr(_templates().get_template("blocks.html").module, macro)(*arguments)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
