"""The losses of the chosen backend."""

from __future__ import annotations

from types import ModuleType

from ..errors import UserError


def load_ops(backend: str) -> ModuleType:
    """``accl_ext`` (fused) or ``accl_ext.reference``, which have the same functions.

    Raises:
        UserError: the fused ops are not built, or not for this torch; says why.
    """
    import accl_ext

    if backend == "reference":
        return accl_ext.reference
    build = accl_ext.build_info()
    if not build["loaded"]:
        raise UserError(
            f"the fused ops cannot be used: {build['reason']}\nOr give --backend reference."
        )
    return accl_ext
