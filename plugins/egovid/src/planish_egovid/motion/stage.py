"""The motion axis' further stage: RAFT finds the flow of frames that an earlier stage has decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from planish.filtering.local_engine import available_cores
from planish.interfaces import ClipWork

from planish_egovid.flow.backend import FlowBackend, raft_backend
from planish_egovid.flow.dominant import dominant_homography
from planish_egovid.flow.one_thread import one_thread
from planish_egovid.flow.track import distinct
from planish_egovid.motion.config import MotionConfig
from planish_egovid.motion.gauge import Gauge, PairMotion, summarised
from planish_egovid.motion.in_threads import in_threads
from planish_egovid.video.request import Frames
from planish_egovid.video.view import ClipView

FRAMES = "motion.frames"
TIMES = "motion.times_s"
GRID = 2
"""Every second vector of every second row is measured, as with DIS."""
MOST_THREADS = 8
MOST_PAIRS_WAITING = 64
"""Pairs whose flow is kept for threads that measure it, at most: about a pass of RAFT, 265 MB at 960x540."""


def packed(view: ClipView, frames: Frames) -> None:
    """Put into the payload what :class:`FlowStage` needs: the frames, without those that are there twice."""
    shown = distinct(frames.times_s)
    view.payload[FRAMES] = frames.images[shown]
    view.payload[TIMES] = frames.times_s[shown]


class FlowStage:
    """Turns frames in the payload into motion columns. Loads its model at first use, in the process that runs it.

    Flow that is found on a GPU is measured by several threads while the GPU goes on; the columns do not depend on how
    many there are.
    """

    def __init__(self, config: MotionConfig, backend: FlowBackend | None = None) -> None:
        """Create the stage for the backend that ``config`` names, or for another one.

        Args:
            config: How motion is measured.
            backend: What finds the flow, instead of RAFT under ``config.raft``.
        """
        self._config = config
        self._given = backend
        self._loaded: FlowBackend | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave a loaded model behind: each process loads its own."""
        return {**self.__dict__, "_loaded": None}

    def __call__(self, works: list[ClipWork]) -> list[ClipWork]:
        """Measure the clips that have frames; the others pass."""
        ready = [work for work in works if work.error is None and FRAMES in work.payload]
        if not ready:
            return works
        backend = self._given or self._loaded
        if backend is None:
            official = self._config.compat == "official"
            self._loaded = backend = raft_backend(self._config.raft, keeps_padding=official)
        flows = backend.flows([work.payload.pop(FRAMES) for work in ready])
        calls = self._calls([np.diff(work.payload.pop(TIMES)) for work in ready], flows)
        # Threads that each held OpenCV to one thread, and gave it back, would get in each other's way.
        with one_thread():
            found = in_threads(calls, threads=self._threads(backend), most_waiting=MOST_PAIRS_WAITING)
            for work, pairs in zip(ready, found, strict=True):
                work.values.update(summarised(pairs))
                work.values["motion_backend"] = backend.name
        return works

    def _threads(self, backend: FlowBackend) -> int:
        """Return how many threads measure; 1 where flow is found on a processor, which has its own share of cores."""
        if not str(getattr(backend, "device", "cpu")).startswith("cuda"):
            return 1
        return self._config.column_threads or min(available_cores(), MOST_THREADS)

    def _calls(
        self, intervals_s: Sequence[NDArray[np.float64]], flows: Iterator[NDArray[np.float32]]
    ) -> Iterator[list[Callable[[], PairMotion]]]:
        """Yield what measures each pair, clip by clip as their flow comes."""
        official = self._config.compat == "official"
        for intervals, flow in zip(intervals_s, flows, strict=True):
            # The flow's own sides: if official, they have the padding that counts.
            height, width = shape = flow.shape[1:3]
            gauge = Gauge(height, width, 1.0, self._config.stride_s, grid=GRID, official=official)
            yield [
                partial(_measured, gauge, shape, one, float(interval))
                for one, interval in zip(flow[:, ::GRID, ::GRID], intervals, strict=True)
            ]


def _measured(gauge: Gauge, shape: tuple[int, int], flow: NDArray[np.float32], interval_s: float) -> PairMotion:
    return gauge.pair(flow, interval_s, homography=dominant_homography(flow, None, GRID, shape))
