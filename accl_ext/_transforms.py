"""Where the fused ops cannot be differentiated, the reference takes their place."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.autograd.forward_ad as forward_ad


def are_active() -> bool:
    """True inside a transform of ``torch.func`` or a level of forward-mode differentiation."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def reference_under_transforms(reference: Callable) -> Callable:
    """Decorate a fused function: inside a transform its call goes to ``reference`` instead.

    An autograd function written in C++ knows neither functorch's levels nor tangents.
    """

    def decorate(fused: Callable) -> Callable:
        @functools.wraps(fused)
        def call(*args, **kwargs):
            if are_active():
                return reference(*args, **kwargs)
            return fused(*args, **kwargs)

        return call

    return decorate
