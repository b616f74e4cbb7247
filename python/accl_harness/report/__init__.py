"""Tables, figures and HTML; nothing here trains."""

from .. import plotting  # noqa: F401
