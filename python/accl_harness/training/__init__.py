"""Training: the step, the loop around it, the session in a run folder, networks read back."""

from .inference import TrainedRun, load_run, predict_probabilities
from .session import Session, training_session

__all__ = ["Session", "TrainedRun", "load_run", "predict_probabilities", "training_session"]
