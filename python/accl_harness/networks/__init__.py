"""The segmentation network G and the discriminator D.

They are pix2pix's, as the paper uses them; other networks can take G's place.
"""

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
