"""Docstrings in one hand: Google's sections, beside what ruff's rules D look at.

Of the modules whose name begins with an underscore only ruff's rules are asked.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("accl_ext", "python/accl_harness")


def documented(text):
    """Every function and class of a source that has a docstring, with it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node, ast.get_docstring(node) or ""


def raised(function):
    """Names of the exceptions that a function raises itself."""
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func)
            if name[0].isupper():  # else a function that makes one
                yield name


def faults(text):
    """What is wrong with the docstrings of a source, one line each."""
    for node, docstring in documented(text):
        prose = re.sub(r":\w+:`[^`]*`|``.*?``", "", docstring, flags=re.DOTALL)
        if "`" in prose:
            yield f"{node.name}: code stands in double backquotes"
        if not isinstance(node, ast.FunctionDef) or not docstring:
            continue
        if re.search(r"(^|\. |\s)Returns?\s+(?!:)", docstring.partition("\n")[2]):
            yield f"{node.name}: what it returns stands under Returns:"
        if re.search(r"[Rr]aises \w+|Error (if|where)\b", docstring):
            yield f"{node.name}: what it raises stands under Raises:"
        for parameter in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            if re.search(rf"^\W*``{parameter.arg}``\W*: ", docstring, re.MULTILINE):
                yield f"{node.name}: {parameter.arg} stands under Args:"
        if not node.name.startswith("_"):
            missing = [name for name in sorted(set(raised(node))) if f"{name}:" not in docstring]
            if missing:
                yield f"{node.name}: Raises: does not name {', '.join(missing)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_are_in_one_hand(package):
    paths = [p for p in sorted((ROOT / package).rglob("*.py")) if not p.name.startswith("_")]
    assert paths
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in paths
        for fault in faults(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_faults_are_seen():
    text = '''
def f(a, b):
    """Do it with `a`.

    ``b``: a number. Returns a sum. Raises KeyError for 0.
    """
    raise ValueError("a")
'''
    assert [fault.partition(": ")[2] for fault in faults(text)] == [
        "code stands in double backquotes",
        "what it returns stands under Returns:",
        "what it raises stands under Raises:",
        "b stands under Args:",
        "Raises: does not name ValueError",
    ]
    right = '''
def f(a, b):
    """Do it with ``a``.

    Args:
        a: a number.
        b: another.

    Returns:
        Their sum.

    Raises:
        ValueError: one is 0.
    """
    raise ValueError("a")
'''
    assert list(faults(right)) == []
