"""The motion axis' further stage: RAFT finds the flow of frames that an earlier stage has decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from planish.interfaces import ClipWork

from planish_egovid.flow.backend import FlowBackend, raft_backend
from planish_egovid.flow.dominant import dominant_homography
from planish_egovid.flow.pixel_grid import inside, pixel_grid
from planish_egovid.flow.track import distinct
from planish_egovid.motion.config import MotionConfig
from planish_egovid.motion.gauge import Gauge, summarised
from planish_egovid.video.request import Frames
from planish_egovid.video.view import ClipView

FRAMES = "motion.frames"
TIMES = "motion.times_s"
GRID = 2
"""Every second vector of every second row is measured, as with DIS."""


def packed(view: ClipView, frames: Frames) -> None:
    """Put into the payload what :class:`FlowStage` needs: the frames, without those that are there twice."""
    shown = distinct(frames.times_s)
    view.payload[FRAMES] = frames.images[shown]
    view.payload[TIMES] = frames.times_s[shown]


class FlowStage:
    """Turns frames in the payload into motion columns. Loads its model at first use, in the process that runs it."""

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
        for work, flow in zip(ready, flows, strict=True):
            work.values.update(self._columns(work, flow))
            work.values["motion_backend"] = backend.name
        return works

    def _columns(self, work: ClipWork, flow: np.ndarray) -> dict[str, Any]:
        intervals = np.diff(work.payload.pop(TIMES))
        height, width = flow.shape[1:3]
        # The flow's own sides: if official, they have the padding that counts.
        official = self._config.compat == "official"
        gauge = Gauge(height, width, 1.0, self._config.stride_s, grid=GRID, official=official)
        shape = height, width
        pairs = []
        for one, interval in zip(flow[:, ::GRID, ::GRID], intervals, strict=True):
            stays = inside(pixel_grid(*shape, GRID) + one, *shape)
            homography = dominant_homography(one, stays, GRID, shape)
            pairs.append(gauge.pair(one, float(interval), homography=homography))
        return summarised(pairs)
