"""How many threads numerical libraries use, so that workers do not fight for the cores and results do not vary."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
"""Environment variables that libraries read when they are loaded."""


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Let OpenCV and torch use this many threads, where they are loaded, and afterwards what they used before."""
    cv2, torch = sys.modules.get("cv2"), sys.modules.get("torch")
    before = cv2.getNumThreads() if cv2 else 0, torch.get_num_threads() if torch else 0
    try:
        if cv2:
            cv2.setNumThreads(threads)
        if torch:
            torch.set_num_threads(threads)
        yield
    finally:
        if cv2:
            cv2.setNumThreads(before[0])
        if torch:
            torch.set_num_threads(before[1])
