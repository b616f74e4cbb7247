"""G: the U-Net of pix2pix (``unet_256`` at depth 8 and width 64), one logit a pixel out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from .blocks import DownConv, UpConv, initialise, norm_layers

if TYPE_CHECKING:
    from ..config import TrainConfig

MAX_DEPTH = 8
MIN_DEPTH = 2
_FIRST_DROPOUT_LEVEL = 4
"""Levels 4 to depth - 2 map the widest blocks onto each other; they carry the dropout."""


class UNet(nn.Module):
    """Encoder of ``depth`` stride-2 convolutions, mirrored decoder, skip concatenations.

    Channels are ``width * (1, 2, 4, 8, 8, ...)``; a smaller depth has fewer of the widest
    blocks. No activation on the output.

    Args:
        width: channels of the outermost level.
        depth: number of halvings; height and width of the input must be multiples of
            ``2**depth`` unless ``pad``.
        norm: ``batch``, ``instance`` or ``none``.
        dropout: probability in the decoder blocks between the innermost and the fourth level.
        prior: initial foreground probability, in (0, 1): the bias of the last layer is its logit.
        pad: replicate the border up to a size that the depth can halve, crop the output.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 8,
        norm: str = "batch",
        dropout: float = 0.5,
        prior: float = 0.5,
        pad: bool = False,
    ):
        super().__init__()
        if not MIN_DEPTH <= depth <= MAX_DEPTH:
            raise UserError(f"depth must be {MIN_DEPTH} to {MAX_DEPTH}, got {depth}")
        if not 0 < prior < 1:
            raise UserError(f"prior must lie between 0 and 1 (exclusive), got {prior}")
        self.depth = depth
        self.pad = pad
        channels = [width * min(2**level, 8) for level in range(depth)]
        self.encoder = nn.ModuleList(_down(level, channels, norm) for level in range(depth))
        self.decoder = nn.ModuleList(_up(level, channels, norm, dropout) for level in range(depth))
        initialise(self)
        nn.init.constant_(self.decoder[0][-1].bias, math.log(prior / (1 - prior)))

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 1, H, W] in [-1, 1] to logits [B, 1, H, W]."""
        height, width = images.shape[-2:]
        if self.pad:
            images = _pad_to_multiple(images, 2**self.depth)
        skips = []
        x = images
        for down in self.encoder:
            x = down(x)
            skips.append(x)
        x = self.decoder[-1](skips.pop())
        for up in reversed(self.decoder[:-1]):
            x = up(torch.cat((skips.pop(), x), 1))
        return x[..., :height, :width] if self.pad else x


def build_generator(config: TrainConfig) -> UNet:
    """The segmentation network of ``config``, freshly initialised from torch's global RNG.

    Raises:
        UserError: the depth cannot halve ``config.size``; the message names sizes that work.
    """
    depth = config.depth or depth_for(config.size)
    if not config.pad:
        check_size(config.size, depth)
    # Where it is left to the data, a training has put the number in, and a trained network's
    # weights take its place.
    prior = 0.5 if config.prior is None else config.prior
    generator = UNet(config.width, depth, config.norm, config.dropout, prior, pad=config.pad)
    for module in generator.modules():
        if hasattr(module, "test_norm"):
            module.test_norm = config.test_norm
    return generator


def depth_for(size: int) -> int:
    """As deep as ``size`` halves, at most 8; an odd half-way size with ``pad`` needs ``depth``."""
    depth = 0
    while depth < MAX_DEPTH and size % 2 ** (depth + 1) == 0:
        depth += 1
    return max(depth, MIN_DEPTH)


def check_size(size: int, depth: int) -> None:
    """Refuse a size that ``depth`` halvings do not divide."""
    if size % 2**depth:
        sizes = " or ".join(str(s) for s in sizes_that_work(size, depth))
        shallower = "a smaller depth, " if depth > MIN_DEPTH else ""
        raise UserError(
            f"size {size} cannot be halved {depth} times: use size {sizes}, {shallower}or pad: true"
        )


def sizes_that_work(size: int, depth: int) -> list[int]:
    """The multiples of ``2**depth`` next to ``size``, below and above."""
    step = 2**depth
    below = size // step * step
    return [s for s in (below, below + step) if s > 0]


def _down(level: int, channels: list[int], norm: str) -> nn.Sequential:
    """Level 0 has no activation and no norm, the innermost level no norm.

    The activation works in place on the skip as well, as in pix2pix: the decoder's ReLU makes
    the same of both.
    """
    innermost = level == len(channels) - 1
    normed = level > 0 and not innermost
    inputs = channels[level - 1] if level else 1
    convolution = DownConv(inputs, channels[level], bias=norm != "batch")
    return nn.Sequential(
        *([nn.LeakyReLU(0.2, inplace=True)] if level else []),
        convolution,
        *(norm_layers(norm, channels[level]) if normed else []),
    )


def _up(level: int, channels: list[int], norm: str, dropout: float) -> nn.Sequential:
    """Level 0 gives the logits: no norm after it, and always a bias."""
    innermost = level == len(channels) - 1
    inputs = channels[level] * (1 if innermost else 2)
    outputs = channels[level - 1] if level else 1
    has_dropout = dropout > 0 and _FIRST_DROPOUT_LEVEL <= level < len(channels) - 1
    return nn.Sequential(
        nn.ReLU(inplace=True),
        UpConv(inputs, outputs, bias=level == 0 or norm != "batch"),
        *(norm_layers(norm, outputs) if level else []),
        *([nn.Dropout(dropout)] if has_dropout else []),
    )


def _pad_to_multiple(images: Tensor, step: int) -> Tensor:
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % step, 0, -height % step), mode="replicate")
