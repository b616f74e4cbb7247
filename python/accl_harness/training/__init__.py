"""Training: the step, the loop around it, checkpoints, and trained networks read back."""

from .inference import TrainedRun, load_run, predict_probabilities
from .loop import run_training

__all__ = ["TrainedRun", "load_run", "predict_probabilities", "run_training"]
