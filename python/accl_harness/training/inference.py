"""A trained run read back, and the probabilities it gives for images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..classes import probabilities
from ..config import TrainConfig
from ..errors import UserError
from ..networks import build_generator
from ..run import Run

FACTS = ("seconds", "annotation_ratio", "bounds", "warnings", "measured")
"""What a checkpoint holds for metrics.json beside the networks."""


@dataclass
class TrainedRun:
    """A segmentation network with the options that it was trained with."""

    config: TrainConfig
    generator: nn.Module
    """In evaluation mode, on ``device``."""
    device: torch.device
    epoch: int
    """The epoch the weights are of."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What only the training knows: the ``FACTS`` of it."""


def load_run(run: Path, device: str | torch.device | None = None) -> TrainedRun:
    """The network of a run's last checkpoint, ready to predict.

    Args:
        run: folder of a finished or interrupted training.
        device: default: the GPU where there is one and the run allows it, else the CPU.

    Raises:
        UserError: no run there, no checkpoint yet, or one that cannot be read.
    """
    run = Run(run)
    config = run.config()
    state = run.load_checkpoint()
    if state is None:
        raise UserError(f"{run.folder} has no checkpoint yet: {run.checkpoint} is missing")
    if device is None:
        use_cuda = torch.cuda.is_available() and config.accelerator != "cpu"
        device = "cuda" if use_cuda else "cpu"
    generator = build_generator(config)
    try:
        generator.load_state_dict(state["generator"])
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"{run.checkpoint} does not fit the network that {run.config_file} describes: one of "
            "them is another run's"
        ) from error
    device = torch.device(device)
    facts = {name: state[name] for name in FACTS if name in state}
    return TrainedRun(config, generator.to(device).eval(), device, state["epoch"], facts)


@torch.no_grad()
def predict_probabilities(run: TrainedRun, images: Tensor) -> Tensor:
    """Probabilities [n, C, s, s] float32 of images [n, 1, s, s].

    Of the foreground where the network gives one logit, else of each class. Computed in the type of
    the weights, never in mixed precision. Each image is predicted as if it were alone (see
    ``test_norm``); dropout is off.
    """
    was_training = run.generator.training
    run.generator.eval()
    try:
        weights = next(run.generator.parameters())
        return probabilities(run.generator(images.to(weights))).float()
    finally:
        run.generator.train(was_training)
