"""OpenCV held to one thread, because its results depend on how many it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold OpenCV to one thread.

    DISOpticalFlow cuts the picture into as many stripes as there are threads and spreads good matches only within a
    stripe: with another number of threads come other results.
    """
    threads = cv2.getNumThreads()
    if threads == 1:
        yield
        return
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
