"""The learning rate, epoch by epoch."""

POWER = 0.9
"""Of the schedule ``poly``, as most of the field has it."""


def learning_rate(epoch: int, epochs: int, initial: float, schedule: str = "half") -> float:
    """Rate of ``epoch`` (from 1) out of ``epochs``.

    ``half``: constant for the first half, then linear towards 0. With 200 epochs: ``initial`` up
    to epoch 100, then ``initial * (1 - (epoch - 100) / 101)``.
    ``poly``: ``initial * (1 - (epoch - 1) / epochs) ** 0.9``.
    """
    if schedule == "poly":
        return initial * (1 - (epoch - 1) / epochs) ** POWER
    constant = epochs // 2
    return initial * (1 - max(0, epoch - constant) / (epochs - constant + 1))
