"""Cutting where the camera's recording was cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from planish.errors import ConfigError, UnsupportedError
from planish.interfaces import Clip

from planish_egovid.clips.frame_rate import to_frame, to_seconds
from planish_egovid.clips.segmenter import Source
from planish_egovid.consistency.appearance import Appearance, thumbnail_request
from planish_egovid.consistency.cuts import find_cuts
from planish_egovid.flow.track import flow_requests, flow_track
from planish_egovid.video import ClipView, DecodeConfig, FrameRequest, VideoInfo, decode_clips

_STRETCH_S = 60.0
"""Seconds that are decoded at a time."""
_OVERLAP_S = 1.0
"""Seconds that stretches share: a change is judged by its neighbours."""
_AROUND_S = 1.0
"""Seconds to either side of a suspected cut whose flow is looked at."""
_CUT = 0.45
"""Least evidence of a cut, as in the consistency axis."""


class SceneSegmenter:
    """Cuts a video at its cuts, by the evidence that the consistency axis uses.

    Thumbnails of all frames raise a suspicion, which optical flow around it must confirm: wearable cameras turn fast
    and are rarely cut, so that colour alone would see cuts in head turns.
    """

    def __init__(self, *, min_frames: int = 120, max_s: float = 10.0, min_score: float = _CUT) -> None:
        """Create the segmenter.

        Args:
            min_frames: Scenes with fewer frames are dropped.
            max_s: Longer scenes are cut into equal parts of at most so many seconds.
            min_score: Evidence from which a change counts as a cut, 0 to 1.

        Raises:
            ConfigError: A value is out of bounds.
        """
        _check(min_frames, max_s)
        if not 0 < min_score <= 1:
            raise ConfigError(f"min_score is {min_score}; expected more than 0, at most 1")
        self._min_frames, self._max_s, self._min_score = min_frames, max_s, min_score

    def clips(self, source: Source) -> list[Clip]:
        """Return the scenes.

        Raises:
            ClipDecodeError: The video cannot be read.
        """
        return scenes(source, self.cuts(source), self._min_frames, self._max_s)

    def cuts(self, source: Source) -> list[int]:
        """Return the first frame after each cut.

        Raises:
            ClipDecodeError: The video cannot be read.
        """
        confirmed: set[int] = set()
        suspected = sorted({time for found in self._suspected(source) for time in found})
        end = to_seconds(source.frames, source.fps)
        spans = [(max(0.0, time - _AROUND_S), min(end, time + _AROUND_S)) for time in suspected]

        def requests(_: Clip, video: VideoInfo, duration_s: float) -> list[FrameRequest]:
            return [thumbnail_request(video, duration_s), *flow_requests(video, duration_s)]

        for clip, view in _views(source, spans, requests):
            appearance = Appearance.of(view.frames(thumbnail_request(view.video, view.duration_s)))
            if len(appearance.changes):
                found = find_cuts(appearance, flow_track(view)).above(self._min_score)
                confirmed |= {to_frame(clip.start_s + time, source.fps) for time in found}
        return sorted(frame for frame in confirmed if 0 < frame < source.frames)

    def _suspected(self, source: Source) -> Iterator[list[float]]:
        """Yield the times at which thumbnails alone would see a cut."""
        end = to_seconds(source.frames, source.fps)
        starts = np.arange(0.0, max(end - _OVERLAP_S, 1e-9), _STRETCH_S - _OVERLAP_S)
        spans = [(float(start), min(end, float(start) + _STRETCH_S)) for start in starts]

        def requests(_: Clip, video: VideoInfo, duration_s: float) -> list[FrameRequest]:
            return [thumbnail_request(video, duration_s)]

        for clip, view in _views(source, spans, requests):
            appearance = Appearance.of(view.frames(thumbnail_request(view.video, view.duration_s)))
            times = appearance.times_s[1:][appearance.unexplained() >= self._min_score]
            yield [clip.start_s + float(time) for time in times]


class PySceneDetectSegmenter:
    """Cuts a video where PySceneDetect's adaptive detector sees cuts.

    Made for edited film: fast head turns of a wearable camera give false cuts more easily than with
    :class:`SceneSegmenter`.
    """

    def __init__(self, *, min_frames: int = 120, max_s: float = 10.0, adaptive_threshold: float = 3.0) -> None:
        """Create the segmenter.

        Args:
            min_frames: Scenes with fewer frames are dropped.
            max_s: Longer scenes are cut into equal parts of at most so many seconds.
            adaptive_threshold: Of ``scenedetect.AdaptiveDetector``.

        Raises:
            ConfigError: A value is out of bounds.
            UnsupportedError: PySceneDetect is not installed.
        """
        _check(min_frames, max_s)
        try:
            import scenedetect
        except ModuleNotFoundError as error:
            raise UnsupportedError(
                "PySceneDetect is not installed; run: pip install 'planish-egovid[scenes]', or take method scenes"
            ) from error
        self._scenedetect: Any = scenedetect
        self._min_frames, self._max_s, self._threshold = min_frames, max_s, adaptive_threshold

    def clips(self, source: Source) -> list[Clip]:
        """Return the scenes.

        Raises:
            UnsupportedError: ``source.stream`` is set, which PySceneDetect cannot choose.
            DataError: The video cannot be read.
        """
        from planish.errors import DataError

        if source.stream is not None:
            raise UnsupportedError("PySceneDetect cannot choose a stream of a file; take method scenes")
        detector = self._scenedetect.AdaptiveDetector(adaptive_threshold=self._threshold, min_scene_len=1)
        try:
            found = self._scenedetect.detect(source.path, detector)
        except Exception as error:
            raise DataError(f"{source.path}: PySceneDetect cannot read it: {' '.join(str(error).split())}") from error
        # By time: in variable-rate files its frame numbers and ours count differently.
        cuts = [to_frame(float(start.seconds), source.fps) for start, _ in found[1:]]
        return scenes(source, cuts, self._min_frames, self._max_s)


def scenes(source: Source, cuts: Sequence[int], min_frames: int, max_s: float) -> list[Clip]:
    """Return the clips between cuts.

    Args:
        source: The video.
        cuts: First frames after cuts, rising.
        min_frames: Scenes with fewer frames are dropped.
        max_s: Longer scenes are cut into equal parts of at most so many seconds.
    """
    most = max(1, math.floor(Fraction(max_s) * source.fps))
    found: list[Clip] = []
    edges = [0, *cuts, source.frames]
    for start, end in pairwise(edges):
        parts = -(-(end - start) // most)
        if end - start < min_frames:
            continue
        bounds = [start + (end - start) * part // parts for part in range(parts + 1)]
        spans = [(low, high) for low, high in pairwise(bounds) if high - low >= min_frames]
        found += [source.clip(low, high) for low, high in spans]
    return found


def _views(
    source: Source,
    spans: Sequence[tuple[float, float]],
    requests: Callable[[Clip, VideoInfo, float], Sequence[FrameRequest]],
) -> Iterator[tuple[Clip, ClipView]]:
    extra = {} if source.stream is None else {"stream": source.stream}
    clips = [
        Clip(f"{source.path}@{start}", source.path, start, end, extra=extra) for start, end in spans if end > start
    ]
    for clip, view in decode_clips(clips, requests, DecodeConfig(max_clip_s=_STRETCH_S + 1.0, damaged="score")):
        if isinstance(view, Exception):
            raise view
        yield clip, view


def _check(min_frames: int, max_s: float) -> None:
    if min_frames < 1:
        raise ConfigError(f"min_frames is {min_frames}; expected 1 or more")
    if not max_s > 0:
        raise ConfigError(f"max_s is {max_s}; expected more than 0")
