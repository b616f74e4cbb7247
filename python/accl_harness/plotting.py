"""Imports Matplotlib where ``MPLBACKEND`` names a backend that is not installed.

A notebook leaves such a name to the programs that it starts, and Matplotlib then refuses to be
imported at all; MONAI imports it as well. No backend is needed here: figures go to files. A name
that Matplotlib knows keeps its effect.
"""

import os
import sys
from contextlib import suppress

if "matplotlib" not in sys.modules:
    _backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if _backend is not None:
            os.environ["MPLBACKEND"] = _backend
    if _backend is not None:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = _backend
