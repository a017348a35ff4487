"""Makes the sample and the broken implementations importable, here and in processes that the suites start."""

import sys
from pathlib import Path

import pytest
import torch

TESTS = str(Path(__file__).parent.parent)
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)


@pytest.fixture(autouse=True)
def one_thread():
    """Compute on one thread: the models are tiny, and more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
