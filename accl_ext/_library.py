"""Finds, checks and loads the compiled operators: ``libaccl_ext_ops.so`` and the module ``_C``.

Nothing here raises at import: where the operators cannot be loaded, :func:`load` says why, and
``accl_ext.reference`` works all the same.
"""

import functools
import hashlib
import importlib.util
import json
import sys
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from ._version import __version__

_OPERATORS = "libaccl_ext_ops.so"
_MODULE = "_C" + (sysconfig.get_config_var("EXT_SUFFIX") or ".so")
_CONFIG = "_build_config.json"
_CONTRACT = ("csrc/ops/library.cpp", "csrc/kernels.h")  # as in cmake/AcclBuildConfig.cmake
_REBUILD = (
    "Rebuild it for this environment, in the sources' folder: "
    "pip install --force-reinstall --no-deps ."
)


class _NotLoadable(Exception):
    pass


def _folder() -> Path:
    """The folder that holds the binary.

    This package's own, or that of the installed accl_ext when these sources run in place (a clone
    first on ``sys.path``) and were not built here.
    """
    own = Path(__file__).parent
    candidates = [own, *(Path(entry or ".") / own.name for entry in sys.path)]
    for folder in candidates:
        if (folder / _CONFIG).is_file() and (folder / _OPERATORS).is_file():
            return folder
    raise _NotLoadable(
        f"there is no compiled library ({_OPERATORS}) in {own} nor in an installed accl_ext. "
        "Build it: pip install ."
    )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _contract() -> str | None:
    """The digest of the schemas and of the kernels' contract in the sources that this file is of.

    None where there are none: an installed package comes with the binary of its own build.
    """
    sources = [Path(__file__).parents[1] / name for name in _CONTRACT]
    if not all(source.is_file() for source in sources):
        return None
    digests = [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _check(config: dict, folder: Path) -> None:
    """Raise if the binary does not fit this torch or these sources.

    Loading one that was built for another torch would fail with "undefined symbol" at best.
    """
    if _minor(config["torch"]) != _minor(torch.__version__):
        raise _NotLoadable(
            f"it was built for torch {_minor(config['torch'])} (with {config['torch']}), but this "
            f"is torch {torch.__version__}. {_REBUILD}"
        )
    if config["version"] != __version__:
        raise _NotLoadable(
            f"these are the sources of accl_ext {__version__}, but the binary in {folder} is of "
            f"{config['version']}. {_REBUILD}"
        )
    if _contract() not in (None, config.get("contract")):
        raise _NotLoadable(
            f"the sources in {Path(__file__).parents[1]} have changed since the binary in {folder} "
            f"was built ({' or '.join(_CONTRACT)}). {_REBUILD}"
        )
    if not (folder / _MODULE).is_file():
        raise _NotLoadable(
            f"it was built for Python {config['python']}, but this is Python "
            f"{sys.version_info.major}.{sys.version_info.minor}. {_REBUILD}"
        )


@functools.cache
def _load() -> tuple[Callable[[], dict] | None, str | None]:
    """Load the operators; return (function that describes the build, None) if that works.

    Otherwise return (the same as far as it is known, or None; the reason). The function is not
    called here, because it raises for an unknown ACCL_EXT_ISA: that is an error of the caller's
    environment, and not a reason to build again.
    """
    config = folder = None
    try:
        folder = _folder()
        config = json.loads((folder / _CONFIG).read_text())
        _check(config, folder)
        torch.ops.load_library(folder / _OPERATORS)
        spec = importlib.util.spec_from_file_location(f"{__package__}._C", folder / _MODULE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.build_info, None
    except _NotLoadable as error:
        reason = str(error)
    except (OSError, ImportError, ValueError, KeyError) as error:
        # torch hides what the loader said behind "Could not load this library"
        reason = f"the library in {folder} does not load: {error.__cause__ or error}. {_REBUILD}"
    if folder is not None:
        warnings.warn(
            f"accl_ext: its compiled operators are off: {reason}", RuntimeWarning, stacklevel=3
        )
    return (None if config is None else config.copy), reason


def load() -> str | None:
    """Load the operators, once.

    A library that is there but does not fit (built for another torch or Python, or broken) also
    gives a ``RuntimeWarning``, the first time.

    Returns:
        None, or the reason why they cannot be loaded.
    """
    return _load()[1]


def build_info() -> dict:
    """What was built, and whether it is loaded.

    ``version``, ``contract`` (digest of schemas and kernels' contract),
    ``git_revision``, ``torch``, ``python``, ``compiler``, ``cxx_standard``, ``build_type``,
    ``instruction_sets`` (built), ``instruction_set`` (that this processor runs), ``cuda`` (the
    toolkit's version; None: a CPU build), ``cuda_driver`` (the lowest NVIDIA driver that runs the
    kernels; None: a CPU build, or a toolkit it is not known for) and ``cuda_architectures``
    ("+PTX": also for later GPUs); with ``loaded`` (bool) and ``reason`` (str or None).

    Without any library only ``version``, ``loaded`` and ``reason`` are there.

    Raises:
        ValueError: the environment variable ACCL_EXT_ISA names no instruction set.
    """
    tell, reason = _load()
    info = {"version": __version__} if tell is None else tell()
    return {**info, "loaded": reason is None, "reason": reason}
