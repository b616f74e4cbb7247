"""G from MONAI: any of its 2-D segmentation networks by name, ``monai:BasicUNet``."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .unet import prior_bias

if TYPE_CHECKING:
    from ..config import TrainConfig

PREFIX = "monai:"
SET_HERE = ("spatial_dims", "in_channels", "out_channels", "img_size")
"""Arguments that the data decide."""


class MonaiNetwork(nn.Module):
    """A network of MONAI as the segmentation network: logits of the image's size.

    Args:
        network: images [B, 1, H, W] to logits [B, C, H, W]; where it gives several outputs (deep
            supervision), the first counts.
        bias: [C], added to the logits; it makes a fresh network start at the prior, whatever the
            network's last layer is, and is trained like any.
    """

    def __init__(self, network: nn.Module, bias: Sequence[float]):
        super().__init__()
        self.network = network
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 1, H, W] in [-1, 1] to logits [B, C, H, W]."""
        return self.first_output(images) + self.bias.view(-1, 1, 1)

    def first_output(self, images: Tensor) -> Tensor:
        """What the network itself gives."""
        logits = self.network(images)
        if isinstance(logits, list | tuple):
            logits = logits[0]
        if logits.dim() == 5:  # DynUNet stacks its outputs [B, n, C, H, W]
            logits = logits[:, 0]
        return logits


def build_monai(config: TrainConfig) -> MonaiNetwork:
    """The network that ``config.network`` names, freshly initialised from torch's global RNG.

    Raises:
        UserError: MONAI is not installed, it has no such network, the network does not know an
            option or cannot take images of the config's size; the message names it.
    """
    name = config.network.removeprefix(PREFIX)
    options = dict(config.network_options or {})
    network_class = _network_class(name)
    known = inspect.signature(network_class).parameters
    _refuse_options(name, options, known)
    fixed = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": config.channels,
        "img_size": (config.size, config.size),
    }
    arguments = {key: value for key, value in fixed.items() if key in known}
    prior = 0.5 if config.prior is None else config.prior
    try:
        network = MonaiNetwork(
            network_class(**arguments, **options), prior_bias(prior, config.channels)
        )
        network.eval()
        with torch.no_grad():
            logits = network.first_output(torch.zeros(1, 1, config.size, config.size))
    except UserError:
        raise
    except Exception as error:  # each network has its own words for what it cannot do
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"network {config.network} does not work with network_options {options} on images of "
            f"{config.size} x {config.size}: {reason:.300}"
        ) from error
    wanted = (1, config.channels, config.size, config.size)
    if tuple(logits.shape) != wanted:
        raise UserError(
            f"network {config.network} gives {tuple(logits.shape)} for one image of "
            f"{config.size} x {config.size}, wanted {wanted}: it is no segmentation network, or "
            "size must be one that it can halve"
        )
    return network.train()


def _network_class(name: str) -> type[nn.Module]:
    try:
        from monai.networks import nets
    except ImportError as error:
        raise UserError(
            f"network {PREFIX}{name}: MONAI is not installed; pip install monai"
        ) from error
    found = getattr(nets, name, None)
    if inspect.isclass(found) and issubclass(found, nn.Module):
        return found
    names = [key for key, kind in vars(nets).items() if inspect.isclass(kind)]
    nearest = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or ["BasicUNet", "UNet"]
    raise UserError(
        f"network: MONAI has no network {name!r}; nearest: {', '.join(nearest)} "
        "(monai.networks.nets lists all)"
    )


def _refuse_options(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    if not {"in_channels", "out_channels"} <= set(known):
        raise UserError(
            f"network {PREFIX}{name} takes no in_channels and out_channels: it is no segmentation "
            "network"
        )
    for option in options:
        if option in SET_HERE:
            raise UserError(f"network_options: {option} is set by the data; leave it out")
        if option not in known:
            others = ", ".join(key for key in known if key not in SET_HERE)
            raise UserError(f"network_options: {name} has no option {option!r}; it has {others}")
