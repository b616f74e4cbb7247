"""Sphinx: sphinx-build -W -b html docs docs/_build/html (pip install '.[docs]')."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import accl_ext  # noqa: E402

project = "accl_ext"
author = "the authors of accl_ext"
release = version = accl_ext.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"accl_ext {release}"

autodoc_typehints = "none"  # the docstrings give shapes and dtypes, which types cannot
autodoc_member_order = "bysource"
napoleon_use_rtype = False
nitpicky = False


def plain_shapes(app, what, name, obj, options, lines):
    """[B, C, *S] is a shape, not the beginning of emphasised text."""
    lines[:] = [re.sub(r"(?<![\\*\w])\*(?=S\b)", r"\\*", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", plain_shapes)
