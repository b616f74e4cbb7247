"""G: the U-Net of pix2pix (``unet_256`` at depth 8 and width 64), one logit a pixel and class."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
            Of several classes the foreground ones share it, or have one number each.
        pad: replicate the border up to a size that the depth can halve, crop the output.
        channels: logits a pixel: 1, or the number of classes.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 8,
        norm: str = "batch",
        dropout: float = 0.5,
        prior: float | Sequence[float] = 0.5,
        pad: bool = False,
        channels: int = 1,
    ):
        super().__init__()
        if not MIN_DEPTH <= depth <= MAX_DEPTH:
            raise UserError(f"depth must be {MIN_DEPTH} to {MAX_DEPTH}, got {depth}")
        bias = prior_bias(prior, channels)
        self.depth = depth
        self.pad = pad
        widths = [width * min(2**level, 8) for level in range(depth)]
        self.encoder = nn.ModuleList(_down(level, widths, norm) for level in range(depth))
        self.decoder = nn.ModuleList(
            _up(level, widths, norm, dropout, channels) for level in range(depth)
        )
        initialise(self)
        with torch.no_grad():
            self.decoder[0][-1].bias.copy_(torch.tensor(bias))

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 1, H, W] in [-1, 1] to logits [B, channels, H, W]."""
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


def build_unet(config: TrainConfig) -> UNet:
    """The U-Net of ``config``, freshly initialised from torch's global RNG.

    Raises:
        UserError: the depth cannot halve ``config.size``; the message names sizes that work.
    """
    depth = config.depth or depth_for(config.size)
    if not config.pad:
        check_size(config.size, depth)
    # Where it is left to the data, a training has put the number in, and a trained network's
    # weights take its place.
    prior = 0.5 if config.prior is None else config.prior
    generator = UNet(
        config.width, depth, config.norm, config.dropout, prior, config.pad, config.channels
    )
    for module in generator.modules():
        if hasattr(module, "test_norm"):
            module.test_norm = config.test_norm
    return generator


def prior_bias(prior: float | Sequence[float], channels: int) -> list[float]:
    """The biases [channels] at which the foreground has the initial probability ``prior``.

    Raises:
        UserError: a probability beyond (0, 1), or not one for each foreground class.
    """
    foregrounds = max(channels - 1, 1)
    each = [prior / foregrounds] * foregrounds if isinstance(prior, float | int) else list(prior)
    if not all(share > 0 for share in each) or not sum(each) < 1:
        raise UserError(f"prior must lie between 0 and 1 (exclusive), got {prior}")
    if len(each) != foregrounds:
        raise UserError(f"prior: wanted {foregrounds} numbers, one a foreground class, got {prior}")
    if channels == 1:
        return [math.log(each[0] / (1 - each[0]))]
    return [math.log(1 - sum(each)), *map(math.log, each)]


def depth_for(size: int) -> int:
    """As deep as ``size`` halves, at most 8; an odd half-way size with ``pad`` needs ``depth``."""
    depth = 0
    while depth < MAX_DEPTH and size % 2 ** (depth + 1) == 0:
        depth += 1
    return max(depth, MIN_DEPTH)


def check_size(size: int, depth: int) -> None:
    """Refuse a size that ``depth`` halvings do not divide.

    Raises:
        UserError: naming the sizes that can be halved so often.
    """
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


def _up(level: int, channels: list[int], norm: str, dropout: float, logits: int) -> nn.Sequential:
    """Level 0 gives the logits: no norm after it, and always a bias."""
    innermost = level == len(channels) - 1
    inputs = channels[level] * (1 if innermost else 2)
    outputs = channels[level - 1] if level else logits
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
