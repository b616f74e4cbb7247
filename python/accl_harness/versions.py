"""Packages: their versions for results and bug reports, and those that may be absent."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from .errors import UserError

PACKAGES = (
    "accl_ext",
    "torch",
    "monai",
    "numpy",
    "scipy",
    "scikit-image",
    "lightning-fabric",
    "jsonargparse",
    "matplotlib",
    "optuna",
)


def versions() -> dict[str, str]:
    """Version of Python and of each package, ``not installed`` where it is absent."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is not imported."""
    return find_spec(module) is not None


def need(module: str, option: str, extra: str) -> None:
    """Refuse an option whose module is in an extra that was not installed.

    Raises:
        UserError: naming the option, the module and how to get it.
    """
    if not is_installed(module):
        raise UserError(
            f"{option} needs {module}, which is not installed: pip install {module} "
            f"(the extra '{extra}' of accl_ext)"
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # A source tree on the path has no metadata, but its module knows.
        return getattr(sys.modules.get(package), "__version__", "not installed")
