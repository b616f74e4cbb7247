"""A trained run read back, and the probabilities it gives for images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import TrainConfig, load_config
from ..errors import UserError
from ..networks import build_generator
from .checkpoint import checkpoint_path, load_checkpoint


@dataclass
class TrainedRun:
    """A segmentation network with the options that it was trained with."""

    config: TrainConfig
    generator: nn.Module
    """In evaluation mode, on ``device``."""
    device: torch.device
    epoch: int
    """The epoch the weights are of."""


def load_run(run: Path, device: str | torch.device | None = None) -> TrainedRun:
    """The network of a run's last checkpoint, ready to predict.

    Args:
        run: folder of a finished or interrupted training.
        device: default: the GPU where there is one and the run allows it, else the CPU.

    Raises:
        UserError: no run there, no checkpoint yet, or one that cannot be read.
    """
    run = Path(run)
    config = load_config(run / "config.yaml")
    state = load_checkpoint(run)
    if state is None:
        raise UserError(f"{run} has no checkpoint yet: {checkpoint_path(run)} is missing")
    if device is None:
        use_cuda = torch.cuda.is_available() and config.accelerator != "cpu"
        device = "cuda" if use_cuda else "cpu"
    generator = build_generator(config)
    generator.load_state_dict(state["generator"])
    device = torch.device(device)
    return TrainedRun(config, generator.to(device).eval(), device, state["epoch"])


@torch.no_grad()
def predict_probabilities(run: TrainedRun, images: Tensor) -> Tensor:
    """Foreground probabilities [n, 1, s, s] float32 of images [n, 1, s, s].

    Computed in the type of the weights, never in mixed precision. Each image is predicted as if
    it were alone (see ``test_norm``); dropout is off.
    """
    was_training = run.generator.training
    run.generator.eval()
    try:
        weights = next(run.generator.parameters())
        return run.generator(images.to(weights)).sigmoid().float()
    finally:
        run.generator.train(was_training)
