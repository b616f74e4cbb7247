"""G by the name that the options give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from .of_monai import PREFIX, build_monai
from .unet import build_unet

if TYPE_CHECKING:
    from ..config import TrainConfig


def build_generator(config: TrainConfig) -> nn.Module:
    """The segmentation network of ``config``, freshly initialised from torch's global RNG.

    Raises:
        UserError: no such network, or one that cannot be made as the options say.
    """
    if config.network.startswith(PREFIX):
        return build_monai(config)
    return build_unet(config)
