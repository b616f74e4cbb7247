"""D: the 70 x 70 PatchGAN of pix2pix, conditioned on the image or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .blocks import ScoreConv, initialise, norm_layers

if TYPE_CHECKING:
    from ..config import TrainConfig


class PatchGAN(nn.Module):
    """Scores patches of 70 x 70 pixels of an (image, mask) pair; no activation on the output.

    Args:
        width: channels of the first layer; then 2, 4 and 8 times as many.
        norm: ``batch``, ``instance`` or ``none``, on all layers but the first and the last.
        conditional: sees the image beside the mask, as the paper's does; else the mask alone.
        maps: maps of a mask, one for each foreground class.
    """

    def __init__(
        self, width: int = 64, norm: str = "batch", conditional: bool = True, maps: int = 1
    ):
        super().__init__()
        self.conditional = conditional
        first = nn.Conv2d(maps + int(conditional), width, 4, 2, 1)
        layers: list[nn.Module] = [first, nn.LeakyReLU(0.2, inplace=True)]
        for inputs, outputs, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers += [
                nn.Conv2d(inputs * width, outputs * width, 4, stride, 1, bias=norm != "batch"),
                *norm_layers(norm, outputs * width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(ScoreConv(8 * width))
        self.layers = nn.Sequential(*layers)
        initialise(self)

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Patch scores [B, 1, h, w] of images [B, 1, H, W] with masks [B, maps, H, W]."""
        return self.layers(torch.cat((images, masks), 1) if self.conditional else masks)


def build_discriminator(config: TrainConfig) -> PatchGAN:
    """The discriminator of ``config``, freshly initialised from torch's global RNG."""
    return PatchGAN(config.width, config.norm, config.sees_image, config.foregrounds)
