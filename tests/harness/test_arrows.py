"""Which part of the harness may use which: arrows run one way, hidden ones in functions too.

Imports stand at the top of a file, but for two reasons to wait: the command line answers at once,
and a library that serves one file format or an extra is loaded where it is needed.
"""

import ast
from pathlib import Path

import accl_harness

ROOT = Path(accl_harness.__file__).parent
ORDER = (
    *("errors", "versions", "plotting", "storage", "classes", "methods", "data"),
    *("annotations", "terms"),
    *("defaults", "option_groups", "config", "config_file", "networks"),
    *("run", "training", "evaluation", "report", "experiments", "marking"),
    *("info", "bench", "verify", "options", "arguments", "commands", "cli", "__main__"),
)
"""Each part uses only parts that stand before it."""
COMMAND_LINE = ("options", "arguments", "commands", "cli")
LATE = {
    "monai",
    "monai.networks",
    "PIL",
    "tifffile",
    "h5py",
    "nibabel",
    "SimpleITK",
    "pycocotools",
    "pydicom",
    "highdicom",
    "napari",
    "napari.utils.colormaps",
    "qtpy.QtCore",
    "qtpy.QtWidgets",
    "optuna",
    "skimage.segmentation",
    "torch.utils.tensorboard",
}
"""Libraries of single file formats, of one method, and of extras."""


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path): path for path in ROOT.rglob("*.py")}


def used_by(module, text):
    """Modules of the harness that a source imports, inside functions and for types as well."""
    package = module if MODULES.get(module, ROOT).name == "__init__.py" else module[:-1]
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            found |= {name[1:] for name in names if name[0] == "accl_harness"}
        if not isinstance(node, ast.ImportFrom):
            continue
        target = tuple(node.module.split(".")) if node.module else ()
        if node.level:
            target = package[: len(package) - (node.level - 1)] + target
        elif target[:1] == ("accl_harness",):
            target = target[1:]
        else:
            continue
        for alias in node.names:
            inner = (*target, alias.name)
            found.add(inner if inner in MODULES else target)
    return found & set(MODULES) - {()}


def test_imports_of_every_form_are_seen():
    text = """
from ..config import TrainConfig
from . import step
def late():
    import accl_harness.report.html
    from accl_harness.evaluation import metrics, predict
"""
    assert used_by(("training", "loop"), text) == {
        ("config",),
        ("training", "step"),
        ("report", "html"),
        ("evaluation", "metrics"),
        ("evaluation", "predict"),
    }


def test_every_part_has_its_place():
    assert {module[0] for module in MODULES if module} == set(ORDER)


def test_no_arrow_runs_back_up():
    up = []
    for module, path in MODULES.items():
        for used in used_by(module, path.read_text(encoding="utf-8")) if module else ():
            if ORDER.index(used[0]) > ORDER.index(module[0]):
                up.append(f"{'.'.join(module)} uses {'.'.join(used)}")
    assert up == []


def test_no_circle_within_a_part():
    uses = {m: used_by(m, p.read_text(encoding="utf-8")) - {m} for m, p in MODULES.items()}
    # A package's own __init__ collects what is below it and is no step of a circle.
    left = {m: {u for u in used if u[0] == m[0]} for m, used in uses.items() if len(m) > 1}
    while free := [module for module, used in left.items() if not used & set(left)]:
        for module in free:
            del left[module]
    assert left == {}


def late_imports(text):
    """What a source imports inside functions."""
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_imports_stand_at_the_top():
    assert list(late_imports("import a\ndef f():\n    import b.c\n    from .d import e")) == [
        "b.c",
        ".d",
    ]
    late = {
        (".".join(module), name)
        for module, path in MODULES.items()
        if module and module[0] not in COMMAND_LINE
        for name in late_imports(path.read_text(encoding="utf-8"))
        if name not in LATE
    }
    assert late == set()
