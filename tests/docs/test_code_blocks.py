"""Every code block of the README, the documentation and the docstrings runs.

Python blocks of a page run one after the other, as a reader would type them. So do the ``accl``
commands of shell blocks, on phantoms, with trainings cut short. Other commands are run by the test
that ELSEWHERE names; a command of a new kind is an error here until somebody says who tests it.
"""

import contextlib
import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
from pathlib import Path

import accl_harness
import pytest
from accl_harness.cli import main as accl
from accl_harness.data.phantom import write_phantom

import accl_ext

ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT / name for name in ("README.md", "csrc/README.md", "examples/README.md"))
PAGES += sorted(ROOT.glob("docs/*.md"))
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)

ELSEWHERE = {
    "python3 -m venv": ".ci/run",
    "pip install": "tests/packaging/test_install.py",
    "uv pip install": "tests/packaging/test_install.py",
    "cmake ": "tests/examples/test_examples.py",
    "build-libtorch/train_step": "tests/examples/test_examples.py",
    "torchrun ": "tests/examples/test_examples.py",
    "bash examples/nnunet/run.sh": "tests/examples/test_examples.py",
    "python examples/": "tests/examples/test_examples.py",
    "python -m build": "docs/wheels.md",  # needs the network and minutes; the page says so
    "docker ": "docs/wheels.md",
    "export ": "docs/wheels.md",
}
NOT_CODE = {"", "text"}  # folder trees and output, unless a line is a command
WRITTEN_FOR_OTHERS = {"bibtex", "cmake", "toml"}
SHORT = ["--epochs=1", "--size=32", "--width=2", "--limit=3", "--tensorboard=false"]
SMALL = ["--n-train=3", "--n-test=2", "--size=64"]


def blocks(page):
    return FENCE.findall(page.read_text(encoding="utf-8"))


def commands(code):
    joined = code.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and line[0] != "#"]


def run_command(line):
    words = shlex.split(line, comments=True)
    if words[0] == "accl":
        words += {"train": SHORT, "compare": SHORT, "phantom": SMALL}.get(words[1], [])
        assert accl(words[1:]) in (0, None), line
    elif words[0] in ("mkdir", "cp"):
        subprocess.run(words, check=True)
    else:
        tested_by = [test for start, test in ELSEWHERE.items() if line.startswith(start)]
        assert tested_by, f"no test runs this command: {line}"
        assert all((ROOT / test).exists() for test in tested_by)
        for word in words:
            if re.fullmatch(r"(examples|docs|benchmarks)/[\w/]+\.(py|sh)", word):
                assert (ROOT / word).is_file(), line


def pages():
    for page in PAGES:
        trains = re.search(r"^accl (train|compare)", page.read_text(encoding="utf-8"), re.MULTILINE)
        marks = [pytest.mark.slow] if trains else []
        yield pytest.param(page, marks=marks, id=str(page.relative_to(ROOT)))


def write_readers_data(commands):
    """``DIR``, ``NEW`` and ``painted``: the pages' words for what a reader has."""
    if not commands:
        return
    classes = re.search(r"--classes (\d+)", commands)
    write_phantom("DIR", n_train=3, n_test=2, size=64, classes=int(classes[1]) if classes else None)
    Path("NEW").symlink_to("DIR/test/images")
    Path("painted").symlink_to("DIR/train/masks")
    if "--patients" in commands:
        for path in list(Path("DIR").rglob("phantom_*.png")):
            number = path.stem[-3:]
            path.rename(path.with_name(f"patient{number}_frame01_slice_3.png"))


@pytest.mark.parametrize("page", list(pages()))
def test_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    write_readers_data(" ".join(re.findall(r"^accl .*\bDIR\b.*", text, flags=re.MULTILINE)))
    namespace = {}
    for kind, code in blocks(page):
        kind = kind.strip()
        if kind == "python":
            if not accl_ext.build_info()["loaded"]:
                pytest.skip("accl_ext is not built")
            exec(compile(code, str(page), "exec"), namespace)
        elif kind in ("bash", *NOT_CODE):
            starts = ("accl ", "python", "pip ", "uv ", "cmake ", "docker ", "torchrun ")
            lines = commands(code)
            if kind == "bash" or any(line.startswith(starts) for line in lines):
                for line in lines:
                    run_command(line)
        else:
            assert kind.startswith("{") or kind in WRITTEN_FOR_OTHERS, f"```{kind} in {page.name}"


def modules():
    for package in (accl_ext, accl_harness):
        yield package.__name__
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not found.name.endswith(("__main__", "._C")):
                yield found.name


def test_docstrings():
    """Examples in docstrings give what they say."""
    attempted = {}
    for name in modules():
        with contextlib.suppress(ImportError):  # an optional package is missing
            module = importlib.import_module(name)
            failed, count = doctest.testmod(module)
            assert failed == 0, name
            attempted[name] = count
    if accl_ext.build_info()["loaded"]:
        assert attempted["accl_ext.functional"] > 10
