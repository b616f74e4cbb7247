"""The learning rate: constant for the first half of the epochs, then linear towards 0."""


def learning_rate(epoch: int, epochs: int, initial: float) -> float:
    """Rate of ``epoch`` (from 1) out of ``epochs``.

    With 200 epochs: ``initial`` up to epoch 100, then ``initial * (1 - (epoch - 100) / 101)``.
    """
    constant = epochs // 2
    return initial * (1 - max(0, epoch - constant) / (epochs - constant + 1))
