"""The segmentation network G and the discriminator D of pix2pix, as the paper uses them, and
other networks in G's place."""

from .generator import build_generator
from .patchgan import PatchGAN, build_discriminator
from .unet import UNet, depth_for, sizes_that_work

__all__ = [
    "PatchGAN",
    "UNet",
    "build_discriminator",
    "build_generator",
    "depth_for",
    "sizes_that_work",
]
