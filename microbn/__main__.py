"""``python -m microbn`` is the command `microbn`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
