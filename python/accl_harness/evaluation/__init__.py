"""Scores of a trained run (MONAI's metrics) and masks for new images."""

from .. import plotting  # noqa: F401
