"""Every file and folder that CONTRIBUTING.md and csrc/README.md name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("accl_ext", "benchmarks", "build_backend", "csrc", "docs", "examples", "python", "tests")


def paths_in(text):
    """Code spans that begin with one of the folders, without globs and parts to be filled in."""
    spans = re.findall(r"`([^`\s]+/[^`\s]*)`", text)
    return {s for s in spans if s.split("/")[0] in FOLDERS and not re.search(r"[*A-Z<]", s)}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "csrc/README.md"])
def test_what_is_named_is_there(page):
    paths = paths_in((ROOT / page).read_text())
    assert "csrc/math/" in paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_the_five_questions_have_a_line_each():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.split("## Where a change goes")[1].split("\n## ")[0]
    starts = dict(re.findall(r"^\| ([^|]+) \| `([^`]+)`", table, re.MULTILINE))
    asked = ("pointwise criterion", "op over pixels", "option of the training", "file format")
    for question in (*asked, "figure of the report"):
        (start,) = [path for name, path in starts.items() if question in name]
        assert (ROOT / start).is_file()
