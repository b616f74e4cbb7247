"""The losses of the chosen backend."""

from __future__ import annotations

from types import ModuleType

from ..errors import UserError

OPS = (
    "accl_loss",
    "accl_discriminator_loss",
    "partial_cross_entropy",
    "size_penalty",
    "segmentation_head",
)


def load_ops(backend: str) -> ModuleType:
    """``accl_ext`` (fused) or ``accl_ext.reference``, which have the same functions.

    Raises:
        UserError: the fused ops are not built, or not for this torch.
    """
    if backend == "reference":
        import accl_ext.reference

        return accl_ext.reference
    try:
        import accl_ext
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the fused ops cannot be loaded ({reason}); {_ADVICE}") from error
    if not all(hasattr(accl_ext, name) for name in OPS):
        raise UserError(f"the fused ops are not built; {_ADVICE}")
    return accl_ext


_ADVICE = "build them with 'pip install .', or give --backend reference"
