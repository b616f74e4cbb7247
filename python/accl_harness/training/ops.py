"""The losses of the chosen backend."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import accl_ext

from ..errors import UserError


def load_ops(backend: str) -> ModuleType:
    """``accl_ext`` (fused) or ``accl_ext.reference``, which have the same functions.

    Raises:
        UserError: the fused ops are not built, or not for this torch, or ACCL_EXT_ISA names no
            instruction set; says why.
    """
    if backend == "reference":
        return accl_ext.reference
    build = build_info()
    if not build["loaded"]:
        raise UserError(
            f"the fused ops cannot be used: {build['reason']}\nOr give --backend reference."
        )
    return accl_ext


def build_info() -> dict[str, Any]:
    """As :func:`accl_ext.build_info`.

    Raises:
        UserError: ACCL_EXT_ISA names no instruction set.
    """
    try:
        return accl_ext.build_info()
    except ValueError as error:
        raise UserError(str(error)) from None
