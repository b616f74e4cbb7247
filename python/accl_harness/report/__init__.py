"""Tables, figures and HTML; nothing here trains."""

import os

# Matplotlib refuses to be imported where this names a backend that is not installed, as a
# notebook's environment may; the figures here are written without any backend.
_backend = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
