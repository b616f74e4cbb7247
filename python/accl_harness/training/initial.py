"""A training that starts from another run's weights."""

from __future__ import annotations

from pathlib import Path

from ..config import TrainConfig
from ..errors import UserError
from ..run import Run
from .state import TrainingState

FORM = {
    "network": "network",
    "network_options": "network_options",
    "width": "width",
    "depth": "depth",
    "size": "size",
    "norm": "norm",
    "conditional": "sees_image",
    "classes": "classes",
}
"""Options that decide the form of the networks, and where their values stand."""


def start_from(folder: str, config: TrainConfig, state: TrainingState) -> list[str]:
    """Give the networks the weights of another run's last checkpoint; the optimisers start anew.

    Args:
        folder: the other run, finished or not; it is only read.
        config: this run's options.
        state: this run's networks, changed in place.

    Returns:
        What a person should know, as warnings.

    Raises:
        UserError: no run there, no checkpoint, or networks of another form.
    """
    run = Run(folder)
    if config.out is not None and run.folder.resolve() == Path(config.out).resolve():
        raise UserError(f"init: {folder} is the run itself, which goes on with --resume")
    other = run.config()
    checkpoint = run.load_checkpoint()
    if checkpoint is None:
        raise UserError(f"init: {folder} has no checkpoint yet: {run.checkpoint} is missing")
    if other.norm != config.norm:  # norms without weights would fit and mean something else
        raise _other_form(folder, other, config)
    try:
        state.generator.load_state_dict(checkpoint["generator"])
        if state.discriminator is None:
            return []
        if "discriminator" not in checkpoint:
            return [f"init: {folder} has no discriminator, so this run's starts from its seed"]
        state.discriminator.load_state_dict(checkpoint["discriminator"])
    except (RuntimeError, KeyError) as error:
        raise _other_form(folder, other, config) from error
    return []


def _other_form(folder: str, other: TrainConfig, config: TrainConfig) -> UserError:
    pairs = [(name, getattr(other, at), getattr(config, at)) for name, at in FORM.items()]
    found = [f"{name} {then} there, {now} here" for name, then, now in pairs if then != now]
    return UserError(
        f"init: the networks of {folder} have another form "
        f"({'; '.join(found) or 'its checkpoint and its config.yaml do not agree'}): give this "
        "run the same options, or leave --init out"
    )
