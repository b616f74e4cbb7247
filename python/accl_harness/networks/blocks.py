"""What G and D share: the norm layers and the initial weights of pix2pix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = ("batch", "instance", "none")
FEW_POSITIONS = 64
"""Up to so many positions (batch included) a convolution is a matrix product on the CPU: its cost
is the weights' memory traffic, which oneDNN multiplies by reordering them. So is one that writes a
single channel, for which oneDNN has no good kernel: a product over the channels gives the map of
each of the 16 taps, and ``fold`` adds them up, each at its place."""


class DownConv(nn.Conv2d):
    """Kernel 4, stride 2, padding 1: halves height and width."""

    def __init__(self, inputs: int, outputs: int, bias: bool):
        super().__init__(inputs, outputs, 4, 2, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        height, width = height // 2, width // 2
        if not _as_product(x, batch * height * width):
            return super().forward(x)
        patches = F.unfold(x, 4, stride=2, padding=1).transpose(1, 2).flatten(0, 1)
        y = patches @ self.weight.flatten(1).t()
        y = y.view(batch, height, width, -1).permute(0, 3, 1, 2).contiguous()
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class UpConv(nn.ConvTranspose2d):
    """Transposed convolution, kernel 4, stride 2, padding 1: doubles height and width."""

    def __init__(self, inputs: int, outputs: int, bias: bool):
        super().__init__(inputs, outputs, 4, 2, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        if not _as_product(x, batch * height * width, self.out_channels == 1):
            return super().forward(x)
        weight = self.weight.flatten(1)
        if self.out_channels == 1:  # reads x as it lies
            patches = torch.bmm(weight.t().expand(batch, -1, -1), x.flatten(2))
        else:  # reads the weights once
            patches = x.flatten(2).transpose(1, 2).flatten(0, 1) @ weight
            patches = patches.view(batch, height * width, -1).transpose(1, 2)
        y = F.fold(patches, (2 * height, 2 * width), 4, stride=2, padding=1)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class ScoreConv(nn.Conv2d):
    """Kernel 4, stride 1, padding 1, one channel out: D's last layer."""

    def __init__(self, inputs: int):
        super().__init__(inputs, 1, 4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        if not _as_product(x, batch * height * width, single=True):
            return super().forward(x)
        # Position by position: the order of channels_last, which D has on the CPU.
        weight = self.weight.flip(2, 3).view(-1, 16)
        taps = x.permute(0, 2, 3, 1).flatten(1, 2) @ weight
        y = F.fold(taps.transpose(1, 2), (height - 1, width - 1), 4, padding=2)
        return y + self.bias.view(-1, 1, 1)


def _as_product(x: Tensor, positions: int, single: bool = False) -> bool:
    return x.device.type == "cpu" and (positions <= FEW_POSITIONS or single)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that at test time can take each image's own statistics.

    Trained at batch 1, the running averages describe no image well; pix2pix therefore tests
    with the statistics of the image at hand. ``test_norm="image"`` does that for every image of
    a batch by itself, ``"running"`` is the usual batch norm. Training is the same in both.
    """

    test_norm = "image"

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.test_norm == "running":
            return super().forward(x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def norm_layers(norm: str, channels: int) -> list[nn.Module]:
    """The norm after a convolution, as a list to splice in (empty for ``none``).

    Raises:
        ValueError: no norm of that name.
    """
    if norm == "batch":
        return [BatchNorm(channels)]
    if norm == "instance":
        return [nn.InstanceNorm2d(channels)]
    if norm == "none":
        return []
    raise ValueError(f"norm must be one of {', '.join(NORMS)}, got '{norm}'")


def initialise(network: nn.Module) -> None:
    """Weights N(0, 0.02), biases 0, batch-norm weights N(1, 0.02), from torch's global RNG."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
