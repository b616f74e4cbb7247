"""Imports torch before anything else here does, without its remark that NumPy is missing.

torch makes that remark while it is imported. Nothing in this package needs NumPy.
"""

import warnings

warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)

import torch  # noqa: E402, F401
