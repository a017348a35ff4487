"""MotionAxis: how strongly and how evenly a clip's picture moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np
from planish.interfaces import Clip, Illustration, Row, Stage

from planish_egovid.axis import Axis
from planish_egovid.flow.chain import LongFlow, long_flows
from planish_egovid.flow.track import FlowTrack, flow_requests, flow_track, sampled_times, track_of
from planish_egovid.model.source import require
from planish_egovid.motion.columns import MotionColumns
from planish_egovid.motion.config import MotionConfig
from planish_egovid.motion.gauge import Gauge, PairMotion, summarised
from planish_egovid.motion.picture import flow_picture, magnitude_plot
from planish_egovid.motion.stage import FlowStage, packed
from planish_egovid.policy.rule import Rule, Threshold
from planish_egovid.video.request import FrameRequest, VideoInfo
from planish_egovid.video.view import ClipView


class MotionAxis(Axis):
    """Motion strength by optical flow between frames 8/30 s apart (EgoVid's ``optical-flow-score.py``).

    With DIS, unless plain, a pixel that leaves the picture, or misses by far when it is followed there and back, is
    taken to move with the picture as a whole: on plain walls, or behind a hand, there is nothing to follow.
    ``flow_valid_frac`` says how many pixels could be followed. The five quarters, ``flow_global`` and
    ``flow_residual`` are planish's own.
    """

    name: ClassVar[str] = "motion"
    summary: ClassVar[str] = "how strongly and how evenly the picture moves"
    Config: ClassVar[type[MotionConfig]] = MotionConfig
    Columns: ClassVar[type[MotionColumns]] = MotionColumns
    cost: ClassVar[float] = 0.15
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            metric="flow_mean",
            column="flow_mean",
            default=Threshold(min=3.0, max=35.0),
            low="motion too low",
            high="motion too high",
            unit="px",
            description="mean magnitude of optical flow over 8/30 s, in a picture whose sides average 512 px",
        ),
        Rule(
            metric="flow_16_",
            column="flow_16_",
            default=Threshold(max=0.6),
            low="too few quick pixels",
            high="motion too high",
            description="share of pixels that move by more than 16 px over 8/30 s",
        ),
    )
    config: MotionConfig

    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> Sequence[FrameRequest]:
        """Return one request: gray frames every 4/30 s for DIS by chaining, or RGB ones every 8/30 s for RAFT."""
        if self.config.backend == "dis":
            return flow_requests(video, duration_s, self.config.flow())
        times = sampled_times(video, duration_s, self.config.stride_s, self.config.sampling)
        return (FrameRequest(times, "rgb", self.config.size),)

    def measure(self, view: ClipView) -> dict[str, Any]:
        """Measure motion by DIS, or put frames into the payload for RAFT."""
        if self.config.backend == "raft":
            (request,) = self.requests(view.clip, view.video, view.duration_s)
            packed(view, view.frames(request))
            return dict.fromkeys((*summarised(()), "motion_backend"))
        pairs = [pair for _, pair in self._measured(view, flow_track(view, self.config.flow()))]
        backend = f"dis-{self.config.preset}-{self.config.method}/cv2-{cv2.__version__}"
        return {**summarised(pairs), "motion_backend": backend}

    def stage(self) -> Stage | None:
        """Return the stage that runs RAFT, or None with DIS.

        Raises:
            UnsupportedError: torchvision is not installed, or the device is not there.
        """
        if self.config.backend == "dis":
            return None
        require("torchvision", "raft")
        return Stage("raft", FlowStage(self.config), batch_size=8, **self.config.raft.resources())

    def illustrate(self, view: ClipView, row: Row) -> list[Illustration]:
        """Return the flow of a typical pair over its first frame, and the magnitude over time; always by DIS."""
        track = self._track_to_show(view)
        measured = list(self._measured(view, track))
        if not measured:
            return []
        means = [pair.mean for _, pair in measured]
        typical, _ = measured[sorted(range(len(means)), key=means.__getitem__)[len(means) // 2]]
        start_s, end_s = float(track.times_s[typical.first]), float(track.times_s[typical.last])
        starts_s = [float(track.times_s[long.first]) for long, _ in measured]
        return [
            flow_picture(track.images[typical.first], typical.flow, track.grid, start_s, end_s),
            magnitude_plot(starts_s, means, self.rules[0].default),
        ]

    def _track_to_show(self, view: ClipView) -> FlowTrack:
        if self.config.backend == "dis":
            return flow_track(view, self.config.flow())
        (request,) = self.requests(view.clip, view.video, view.duration_s)
        frames = view.frames(request)
        gray = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in frames.images]).astype(np.uint8)
        return track_of(replace(frames, images=gray), self.config.flow().model_copy(update={"prewarp": "always"}))

    def _measured(self, view: ClipView, track: FlowTrack) -> Iterator[tuple[LongFlow, PairMotion]]:
        """Yield the flow of each pair, and what it measures."""
        official = self.config.compat == "official"
        height, width = view.video.height, view.video.width
        gauge = Gauge(height, width, track.scale, self.config.stride_s, grid=track.grid, official=official)
        for long in long_flows(track, self.config.links, filled=self.config.method != "plain"):
            interval_s = float(track.times_s[long.last] - track.times_s[long.first])
            yield long, gauge.pair(long.flow, interval_s, valid=long.valid, homography=long.homography)
