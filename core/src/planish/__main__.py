"""``python -m planish``."""

import sys

from planish.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
