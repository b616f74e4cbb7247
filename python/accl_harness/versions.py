"""Versions of Python and of the packages that a result or a bug report depends on."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "accl_ext",
    "torch",
    "monai",
    "numpy",
    "scipy",
    "lightning-fabric",
    "jsonargparse",
    "matplotlib",
    "optuna",
)


def versions() -> dict[str, str]:
    """Version of Python and of each package, ``not installed`` where it is absent."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # A source tree on the path has no metadata, but its module knows.
        return getattr(sys.modules.get(package), "__version__", "not installed")
