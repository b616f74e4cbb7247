"""What keeps the sources readable: files up to 400 lines, functions up to 60, no test named twice.

A function's length is that of its code: its docstring does not count.
"""

import ast
import collections
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("accl_ext", "benchmarks", "build_backend", "csrc", "examples", "python", "tests")
FILE_LINES, FUNCTION_LINES = 400, 60
CPP = {".cpp", ".cu", ".cuh", ".h"}

NO_FUNCTION = re.compile(r"namespace|struct|class|enum|extern|//")


def sources(suffixes) -> list[Path]:
    return [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in suffixes and "__pycache__" not in path.parts
    ]


def python_functions(text: str):
    """(name, lines of code) of every function and method."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, lines


def cpp_functions(text: str):
    """(first line, lines) of every function and method with a body.

    As clang-format writes them: a function begins at the margin, or two columns in if it is a
    member, and ends with a brace in the same column; what lies between is indented further. Blocks
    within a function are found as well, which does no harm: they are shorter.
    """
    lines = text.splitlines()
    for end, line in enumerate(lines):
        if not re.fullmatch(r" {0,2}}", line):
            continue
        begins = re.compile(line[:-1] + r"[^\s#}]")
        begin = next(i for i in range(end - 1, -1, -1) if begins.match(lines[i]))
        if not NO_FUNCTION.match(lines[begin].strip()):
            yield lines[begin].strip(), end - begin + 1


def too_long(path: Path) -> list[str]:
    text, name = path.read_text(), path.relative_to(ROOT)
    functions = cpp_functions(text) if path.suffix in CPP else python_functions(text)
    found = [
        f"{name}: {function}: {lines}" for function, lines in functions if lines > FUNCTION_LINES
    ]
    if text.count("\n") > FILE_LINES:
        found.append(f"{name}: {text.count(chr(10))} lines")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_and_no_function_is_too_long(folder):
    paths = [p for p in sources({".py", *CPP}) if p.is_relative_to(ROOT / folder)]
    assert paths
    assert not [line for path in paths for line in too_long(path)]


def test_no_two_test_files_share_a_name():
    """Folders of tests are no packages, so pytest imports a file by its bare name."""
    names = collections.Counter(path.name for path in sorted((ROOT / "tests").rglob("test_*.py")))
    assert len(names) > 50
    assert not [name for name, count in names.items() if count > 1]


def test_long_functions_are_seen():
    body = "\n".join(f"    x = {i}" for i in range(61))
    doc = '    """' + "\n" * 70 + '    """\n'
    assert dict(python_functions(f"def f():\n{doc}{body}\n")) == {"f": 62}
    lines = "\n".join(f"    int x{i} = 0;" for i in range(61))
    member = f"struct S {{\n  int f(int a,\n        int b) const {{\n{lines}\n  }}\n}};\n"
    assert [n for _, n in cpp_functions(member)] == [64]
    assert [
        n for _, n in cpp_functions(f"namespace n {{\nvoid f() {{\n{lines}\n}}\n}} // n\n")
    ] == [63]
