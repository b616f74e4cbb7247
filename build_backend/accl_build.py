"""The PEP 517 build backend: setuptools', told which torch to build against.

pip builds in an environment of its own, where the user's torch is not on ``sys.path``. A binary
built against a second torch, downloaded for the build alone, would not fit the first. So:
torch on ``sys.path`` (no build isolation) or in the environment that the wheel is for is the one
that is used; where there is none, the build asks for the default one, and so does the wheel.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools
from setuptools import build_meta

DEFAULT_TORCH = "2.13.0"
_FIND_TORCH = """
import importlib.util
spec = importlib.util.find_spec("torch")
print(spec.submodule_search_locations[0] if spec else "")
"""


def find_torch() -> Path | None:
    """torch's package folder (it is not imported), or None."""
    spec = importlib.util.find_spec("torch")
    if spec is not None:
        return Path(spec.submodule_search_locations[0])
    # -E: without pip's PYTHONPATH the interpreter sees the environment it belongs to.
    answer = subprocess.run(
        [sys.executable, "-E", "-c", _FIND_TORCH], cwd="/", capture_output=True, text=True
    ).stdout.strip()
    return Path(answer) if answer else None


def torch_requirement() -> str:
    """The requirement of the wheel: the minor version that the binary is built against."""
    folder = find_torch()
    version = DEFAULT_TORCH
    if folder is not None:
        match = re.search(r"__version__ = ['\"]([^'\"]+)", (folder / "version.py").read_text())
        version = match.group(1)
    major, minor = version.split(".")[:2]
    return f"torch=={major}.{minor}.*"


def find_tool(name: str, minimum: tuple[int, ...] = (0,)) -> str | None:
    """A program that runs: under build isolation the scripts of a Python package may not."""
    folders = [*os.get_exec_path(), sysconfig.get_path("scripts")]
    for folder in folders:
        program = shutil.which(name, path=folder)
        if program is None:
            continue
        answer = subprocess.run([program, "--version"], capture_output=True, text=True)
        version = re.search(r"\d+(\.\d+)+", answer.stdout) if answer.returncode == 0 else None
        if version and tuple(map(int, version.group().split("."))) >= minimum:
            return program
    return None


def find_cmake() -> str | None:
    return find_tool("cmake", (3, 24))


def find_ninja() -> str | None:
    return find_tool("ninja")


def _in_environment_of_uv() -> bool:
    """Whether this is one of the environments that uv makes for a build, in its cache."""
    return "UV" in os.environ and "builds-v0" in Path(sys.prefix).parts


def _requirements() -> list[str]:
    wanted = []
    if find_torch() is None:
        if _in_environment_of_uv():
            # Nothing here leads to the environment that the wheel is for: a wheel for the default
            # torch would make uv replace the one that is there.
            raise SystemExit(
                "accl_ext: uv builds where the torch of your environment cannot be seen. Install "
                "torch and the tools first, then build without isolation:\n"
                "  uv pip install torch 'setuptools>=77' cmake ninja\n"
                "  uv pip install --no-build-isolation ."
            )
        wanted.append(f"torch=={DEFAULT_TORCH}")
    if find_cmake() is None:
        wanted.append("cmake>=3.24")
    if find_ninja() is None:
        wanted.append("ninja")
    return wanted


def _check_setuptools() -> None:
    if int(setuptools.__version__.split(".")[0]) < 77:
        raise SystemExit(
            f"accl_ext: needs setuptools 77 or newer to build, found {setuptools.__version__}: "
            "pip install --upgrade setuptools (or leave --no-build-isolation out)"
        )


def get_requires_for_build_wheel(config_settings=None):
    return build_meta.get_requires_for_build_wheel(config_settings) + _requirements()


def get_requires_for_build_editable(config_settings=None):
    return build_meta.get_requires_for_build_editable(config_settings) + _requirements()


def get_requires_for_build_sdist(config_settings=None):
    return build_meta.get_requires_for_build_sdist(config_settings)


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    _check_setuptools()
    return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None):
    _check_setuptools()
    return build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _check_setuptools()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _check_setuptools()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    _check_setuptools()
    return build_meta.build_sdist(sdist_directory, config_settings)
