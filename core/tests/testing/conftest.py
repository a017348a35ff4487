"""Makes the sample and the broken implementations importable, here and in processes that the suites start."""

import sys
from pathlib import Path

TESTS = str(Path(__file__).parent.parent)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)
