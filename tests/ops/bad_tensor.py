"""What a bad call is given in the place of a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import float32


@dataclass(frozen=True)
class T:
    """A tensor to be made on the device of the test, or on the other one."""

    shape: tuple[int, ...]
    dtype: torch.dtype = float32
    elsewhere: bool = False
    grad: bool = False

    def make(self, device: str, other: str) -> torch.Tensor:
        return torch.zeros(
            self.shape,
            dtype=self.dtype,
            device=other if self.elsewhere else device,
            requires_grad=self.grad,
        )
