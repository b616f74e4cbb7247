"""One self-contained HTML file: inline style, pictures as data URIs, no script, no request.

The page's own security policy forbids anything else, so a report can be mailed and opened
anywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from .table import Sheet

STYLE = """
:root { --ink: #1b1f24; --soft: #5b6470; --line: #d9dee4; --wash: #f5f7f9; --mark: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 36px 28px 64px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 44px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
p.lead { color: var(--soft); margin: 0 0 18px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0 10px; }
th, td { padding: 6px 14px; text-align: right; white-space: nowrap; }
th { font-weight: 600; font-size: 13px; color: var(--soft); border-bottom: 2px solid var(--ink); }
td { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 4px; }
td:first-child { font-weight: 600; }
td:nth-child(2) { font-weight: 600; }
tbody tr:hover { background: var(--wash); }
figure { margin: 14px 0 22px; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 13.5px; margin-top: 6px; max-width: 95ch; }
ul { padding-left: 20px; max-width: 100ch; }
li { margin: 3px 0; }
.warning { border-left: 3px solid #d55e00; background: #fdf3ec; padding: 8px 14px; }
.warning ul { margin: 4px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 22px; margin: 8px 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; background: var(--wash);
  padding: 1px 5px; border-radius: 3px; }
@media print { main { max-width: none; padding: 0; } figure { break-inside: avoid; } }
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, lead: str, blocks: Iterable[str]) -> str:
    """The whole document; `blocks` come from the functions below, already escaped."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(block for block in blocks if block)
        + "\n</main>\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def table(sheet: Sheet) -> str:
    """A sheet, wide ones scroll."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in sheet.headings)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in sheet.rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def figure(path: Path | None, caption: str) -> str:
    """A PNG embedded as a data URI; nothing where `path` is None."""
    if path is None:
        return ""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(caption, quote=True)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def notes(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def warnings(items: Sequence[str]) -> str:
    """What went wrong in the runs, in a box of its own; nothing where nothing did."""
    return f'<div class="warning">{notes(items)}</div>' if items else ""


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A definition list; a value in backquotes becomes code."""
    entries = []
    for key, value in pairs:
        text = escape(value)
        if len(value) > 1 and value[0] == value[-1] == "`":
            text = f"<code>{escape(value[1:-1])}</code>"
        entries.append(f"<dt>{escape(key)}</dt><dd>{text}</dd>")
    return "<dl>" + "".join(entries) + "</dl>"
