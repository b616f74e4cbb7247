"""``python -m accl_harness`` is ``accl``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
